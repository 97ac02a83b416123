"""What the tests of structured operators share."""

import numpy as np
import pytest
import torch


@pytest.fixture(scope="session")
def agrees():
    """Check every product of an operator against a matrix that was made without it."""

    def check(operator, dense):
        dense = torch.as_tensor(np.asarray(dense), dtype=operator.dtype)
        tolerance = (1e-12 if operator.dtype == torch.float64 else 2e-5) * max(1.0, float(dense.norm()))
        m, n = dense.shape
        assert operator.shape == (m, n)
        made = operator.matrix()
        assert made.dtype == operator.dtype
        torch.testing.assert_close(made, dense, rtol=0, atol=tolerance)
        generator = torch.Generator().manual_seed(m * 31 + n)
        for batch in ((), (3,), (2, 1)):
            x = torch.randn(*batch, n, dtype=operator.dtype, generator=generator)
            y = torch.randn(*batch, m, dtype=operator.dtype, generator=generator)
            near = {"rtol": 0, "atol": tolerance * max(m, n) ** 0.5}
            forward, back = operator.matvec(x), operator.adjoint(y)
            torch.testing.assert_close(forward, x @ dense.mT, **near)
            torch.testing.assert_close(back, y @ dense, **near)
            torch.testing.assert_close((forward * y).sum(-1), (x * back).sum(-1), rtol=0, atol=tolerance * max(m, n))
            torch.testing.assert_close(
                operator.gram(x),
                x @ dense.mT @ dense,
                rtol=0,
                atol=tolerance * max(m, n) * max(1.0, float(dense.norm())),
            )

    return check


@pytest.fixture(scope="session")
def loops():
    """A convolution's matrix entry by entry, in Python loops over outputs, channels and taps."""

    def write(weight, size, stride, before, after, dilation, groups=1, edges="zeros"):
        weight = weight.double().numpy()
        out, per_group, *kernel = weight.shape
        channels = per_group * groups
        mode = {"circular": "wrap", "reflect": "reflect", "replicate": "edge"}
        sources = []
        for n, b, a in zip(size, before, after, strict=True):
            if edges == "zeros":
                sources.append(np.pad(np.arange(n), (b, a), constant_values=-1))
            else:
                sources.append(np.pad(np.arange(n), (b, a), mode=mode[edges]))
        counts = [
            (len(source) - d * (k - 1) - 1) // s + 1
            for source, d, k, s in zip(sources, dilation, kernel, stride, strict=True)
        ]
        matrix = np.zeros((out, *counts, channels, *size))
        for o, *j in np.ndindex(out, *counts):
            for c, *t in np.ndindex(per_group, *kernel):
                pixel = [
                    source[s * p + d * q] for source, s, p, d, q in zip(sources, stride, j, dilation, t, strict=True)
                ]
                if min(pixel) >= 0:
                    group = o // (out // groups)
                    matrix[(o, *j, group * per_group + c, *pixel)] += weight[(o, c, *t)]
        return matrix.reshape(out * int(np.prod(counts)), channels * int(np.prod(size)))

    return write
