"""The kernels in Triton's interpreter: `TRITON_INTERPRET=1 python triton_worker.py`. Silent if all is right."""

import math
import sys

import torch

from lsdr.linalg import tracked_layer, triton_gram
from lsdr.linalg.tracking import Tracker


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def weights():
    """Odd shapes, several pieces of rows, one row, one column, a view with gaps, half precision."""
    return {
        "odd": random(7, 33),
        "tall": random(110, 5),
        "one": random(1, 1),
        "row": random(1, 70),
        "bf16": random(9, 130).bfloat16(),
        "fp16": random(6, 64).half(),
        "view": random(20, 30)[:, 3:20],
        "long": random(13, 300, seed=1),
    }


def check_products(device):
    for longest in (1 << 14, 64):  # with the second, longer rows are read in chunks
        triton_gram._LONGEST, triton_gram._CHUNK = longest, 32
        triton_gram._PIECE_BYTES, triton_gram._PIECE_ROWS = 1 << 11, 3
        matrices = [weight.to(device) for weight in weights().values()]
        assert all(triton_gram.suitable(matrix) for matrix in matrices)
        vectors = [random(min(3, *matrix.shape), matrix.shape[1]).to(device) for matrix in matrices]
        out = [torch.full_like(block, math.nan) for block in vectors]
        grouped = triton_gram.GroupedGram(matrices, vectors, out)
        squares = grouped().tolist()
        for matrix, block, product, total in zip(matrices, vectors, out, squares, strict=True):
            wide = matrix.double()
            expected = (block.double() @ wide.mT) @ wide
            torch.testing.assert_close(product.double(), expected, rtol=1e-5, atol=1e-6 * float(expected.abs().max()))
            assert math.isclose(total, float(wide.square().sum()), rel_tol=1e-6)
        first = [product.clone() for product in out]
        grouped()
        assert all(torch.equal(one, other) for one, other in zip(first, out, strict=True))  # bitwise, every time


def check_tracker(device, count):
    """The same update as plain torch makes, also where the kernels must stand back."""
    results = []
    for kernels in (True, False):
        held = {name: weight.to(device) for name, weight in weights().items()}
        held |= {
            "transposed": random(12, 7).mT.to(device),
            "double": random(5, 6).double().to(device),
            "tiny": (random(5, 6) * 1e-25).to(device),
            "zero": torch.zeros(4, 6, device=device),
            "broken": random(6, 6).to(device),
        }
        calls = []
        plain = triton_gram.GroupedGram.__call__
        triton_gram.GroupedGram.__call__ = lambda self, plain=plain, calls=calls: calls.append(1) or plain(self)
        tracker = Tracker(held, count=count)
        tracked_layer.available = triton_gram.available if kernels else lambda device: False
        found = [tracker.update()]
        for weight in held.values():
            weight.mul_(weight.abs() + 0.5)
        held["broken"][1, 2] = math.nan
        found += [tracker.update(), tracker.update(["odd", "bf16"]), tracker.update(steps=2)]
        triton_gram.GroupedGram.__call__ = plain
        assert bool(calls) == kernels
        assert tracker.broken == {"broken": 1}
        results.append(found)
    for one, other in zip(*results, strict=True):
        assert list(one) == list(other)
        for name, spectrum in one.items():
            expected = other[name]
            at = 3e-4 * float(expected.values[0])  # what is below the root of the unit roundoff is rounding
            torch.testing.assert_close(spectrum.values, expected.values, rtol=1e-5, atol=at, msg=name)
            torch.testing.assert_close(spectrum.upper, expected.upper, rtol=1e-5, atol=at, msg=name)


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    target = torch.device(sys.argv[1] if len(sys.argv) > 1 else "cpu")
    assert triton_gram.available(target)
    check_products(target)
    for number in (1, 2):
        check_tracker(target, number)
