"""The linear probe: how well a linear classifier does on frozen codes."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

_STEPS = 500
_ROUNDING = 1e-7  # codes in float32 that vary by less do not vary
_GRADIENT = 1e-6  # largest entry of the gradient of the objective's mean over examples at which a fit ends


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """A linear classifier of standardised codes."""

    mean: Float[Tensor, " d"]
    scale: Float[Tensor, " d"]
    weight: Float[Tensor, "k d"]
    bias: Float[Tensor, " k"]
    classes: Int[Tensor, " k"]

    def logits(self, codes: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """Scores of the classes, in float64."""
        return ((codes.double() - self.mean) * self.scale) @ self.weight.T + self.bias

    def __call__(self, codes: Float[Tensor, "n d"]) -> Int[Tensor, " n"]:
        """The likeliest class of each code; -1 of a code that is not finite."""
        found = self.classes[self.logits(codes.nan_to_num(0.0, 0.0, 0.0)).argmax(1)]
        return found.where(codes.isfinite().all(1), -1)

    def accuracy(self, codes: Float[Tensor, "n d"], labels: Int[Tensor, " n"]) -> float:
        """Share of the codes whose class it tells."""
        return float((self(codes) == labels).double().mean())


@torch.no_grad()
def linear_probe(codes: Float[Tensor, "n d"], labels: Int[Tensor, " n"], strength: float = 1.0) -> LinearProbe:
    r"""Multinomial logistic regression of standardised codes with a ridge.

    .. math:: \min_{W, b} \; \sum_n -\log \mathrm{softmax}(W x_n + b)_{y_n} + \frac{1}{2 c} \|W\|_F^2

    x the codes, standardised with these examples' mean and deviation (a dimension that does not vary, or by a
    millionth of the one that varies most, stays 0), the
    bias free: scikit-learn's `LogisticRegression(C=c)` after a `StandardScaler`. Solved by L-BFGS in float64; with
    fewer examples than dimensions, in the span of the examples, where the solution lies.

    With one class alone it always says that.

    Args:
        codes: Finite codes of n >= 1 examples, on the CPU.
        labels: Their classes: any integers.
        strength: c: the larger, the less ridge.

    Raises:
        ValueError: If there are no examples, or codes are not finite.

    Example:
        >>> probe = linear_probe(torch.tensor([[0.0], [1.0], [4.0], [5.0]]), torch.tensor([3, 3, 7, 7]))
        >>> probe(torch.tensor([[-1.0], [6.0]])).tolist()
        [3, 7]
    """
    if not len(codes) or len(codes) != len(labels):
        raise ValueError(f"a probe needs examples and a label for each, got {len(codes)} and {len(labels)}")
    if not bool(codes.isfinite().all()):
        raise ValueError("a probe needs finite codes: some are nan or infinite")
    mean = codes.double().mean(0)
    centred = codes.double() - mean
    deviation = centred.square().mean(0).sqrt()
    varies = deviation > torch.maximum(_ROUNDING * mean.abs(), 10 * _ROUNDING * deviation.amax())
    scale = torch.where(varies, 1 / deviation, 0)
    classes, target = labels.unique(return_inverse=True)
    x, span = centred * scale, None
    if len(x) < x.shape[1]:
        span, triangle = torch.linalg.qr(x.T)
        x = triangle.T
    weight = x.new_zeros((len(classes), x.shape[1] + 1))
    if len(classes) > 1:
        weight = _solve(x, target, weight, strength)
    slope = weight[:, :-1] if span is None else weight[:, :-1] @ span.T
    return LinearProbe(mean, scale, slope, weight[:, -1], classes)


def _solve(
    x: Float[Tensor, "n d"], target: Int[Tensor, " n"], weight: Float[Tensor, "k e"], strength: float
) -> Float[Tensor, "k e"]:
    """The minimum, from zero; the last column of the weight is the bias."""
    from scipy.optimize import minimize  # its import takes a second, which reading a probe need not

    rows = torch.arange(len(x))
    ridge = 1 / (strength * len(x))
    shape = weight.shape

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        guess = torch.from_numpy(flat).view(shape)
        logs = (x @ guess[:, :-1].T + guess[:, -1]).log_softmax(1)
        wrong = logs.exp()
        wrong[rows, target] -= 1
        slope = torch.cat([wrong.T @ x / len(x) + ridge * guess[:, :-1], wrong.mean(0)[:, None]], 1)
        value = ridge / 2 * guess[:, :-1].square().sum() - logs[rows, target].mean()
        return float(value), slope.flatten().numpy()

    options = {"maxiter": _STEPS, "gtol": _GRADIENT, "ftol": 0.0, "maxcor": 20}
    found = minimize(objective, weight.flatten().numpy(), jac=True, method="L-BFGS-B", options=options)
    return torch.from_numpy(found.x).view(shape)
