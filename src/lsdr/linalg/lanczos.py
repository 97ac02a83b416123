"""The largest singular value from a cold start, between a lower bound and an upper bound that fails rarely."""

import math
from functools import lru_cache

import torch
from jaxtyping import Float
from scipy.linalg import eigh_tridiagonal
from scipy.stats import chi2
from torch import Tensor

from lsdr.linalg.dense import Dense
from lsdr.linalg.full_precision import full_precision
from lsdr.linalg.operator import LinearOperator
from lsdr.linalg.ritz_bounds import rounding
from lsdr.spectrum import Spectrum

# Starts where the space of the first is exhausted (identity, low rank): together they leave a direction out far more
# rarely than one does, so that float32 rounding, which hides small components, hides nothing that matters.
_STARTS = 4
# Shares of `failure` for the bounds from one start, two, three and four: which of them is used depends on the run.
_SHARES = (0.97, 0.01, 0.01, 0.01)
# Squared components in the basis add up to at most 1; it is orthonormal to far better than a hundredth.
_FULL = 1.01


def lanczos(
    operator: LinearOperator,
    *,
    tolerance: float = 0.01,
    failure: float = 1e-3,
    max_steps: int = 200,
    generator: torch.Generator | None = None,
) -> Spectrum:
    r"""Bracket the largest singular value of an operator by its products alone.

    .. math:: \sqrt{\theta_k} \le \sigma_1 \le \sqrt{\Lambda}, \quad
        \Lambda = \max\Bigl\{\lambda : c \textstyle\sum_{j=0}^{k} p_j(\lambda)^2 \le 1\Bigr\}

    Lanczos on A'A from a Gaussian start x. The largest Ritz value :math:`\theta_k` is a lower bound always. The
    components :math:`y_j = q_j' v_1` of the unknown top vector follow the three-term recurrence of the run at
    :math:`\lambda = \sigma_1^2`, :math:`y_j = g\, p_j(\lambda)`, their squares sum to 1 at most, and
    :math:`g = x' v_1` is standard normal: :math:`g^2 \ge c` but with probability `failure`. A lambda for which the sum
    exceeds 1 is therefore excluded. The upper bound fails at most that often, whatever the operator.

    In the units of the operator. Where it has more columns than rows the start is A'u, for u Gaussian among the
    outputs: half a step more for the same work. Where the space is exhausted early (low rank, few distinct values)
    there are three more runs from starts of their own, and the bound is the largest of the four for a c that makes up
    for the other three.

    Rounding: both bounds are widened by 4 u sqrt(max(m, n)), u the unit roundoff of the products' type, for errors of
    the recurrence's coefficients, which are long sums; and within the recurrence every step is allowed an error along
    the top vector of 2 u lambda, or of twice the largest that the last step shows against directions in which exact
    arithmetic gives 0. This allowance is statistical, as rounding errors are; for a proof see `certified_norm`.

    Cost: one product with A'A a step; about 25 steps for a 1280 x 1280 matrix without a gap, 5 to 10 for trained
    layers. Memory: one vector of n elements a step.

    Source: the random start is that of Kuczynski & Wozniakowski, SIAM J. Matrix Anal. Appl. 13 (1992); the bound from
    the run itself that of van Dorsselaer, Hochstenbach & van der Vorst, SIAM J. Matrix Anal. Appl. 22 (2000),
    section 3, for matrices as in Hochstenbach, J. Sci. Comput. 57 (2013). We deviate in the Gaussian start, in further
    starts and in the rounding.

    Args:
        operator: What to measure.
        tolerance: Stop when upper / lower - 1 is below. Rounding may not allow some 2e-4 or less in float32.
        failure: Probability that the upper bound is below the truth, of the random start alone. In float32 not below
            1e-6 sqrt(n) or so: less of the top vector than that is lost in rounding.
        max_steps: Give what there is after so many steps, tolerance reached or not (`method` says which).
        generator: Of the start; None is torch's global one.

    Returns:
        One value (the Ritz value) with bounds and the residual |A'A v - sigma^2 v| / sigma^2, in float64 on the CPU.

    Raises:
        ValueError: If the operator holds nan or infinite numbers, or the arguments cannot be met.

    Example:
        >>> spectrum = lanczos(Dense(torch.diag(torch.tensor([3.0, 2.0, 1.0]))))
        >>> spectrum.values, bool(spectrum.lower <= 3 <= spectrum.upper)
        (tensor([3.], dtype=torch.float64), True)
    """
    with full_precision(operator.device):
        return _bracket(operator, tolerance, failure, max_steps, generator)[0]


def lanczos_vector(
    operator: LinearOperator,
    *,
    tolerance: float = 0.01,
    failure: float = 1e-3,
    max_steps: int = 200,
    generator: torch.Generator | None = None,
) -> tuple[Spectrum, Float[Tensor, "n"]]:
    """As `lanczos`, with the right singular vector that belongs to the value.

    Returns:
        The spectrum, and the Ritz vector of norm 1 (in the operator's type, on its device). Its error is about the
        residual over the relative gap to the next squared singular value. Of a zero operator: a random direction.
    """
    with full_precision(operator.device):
        spectrum, run = _bracket(operator, tolerance, failure, max_steps, generator)
        if run is None:
            vector = draw(operator.shape[1], operator, generator)
        else:
            coefficients = torch.tensor(run.ritz_vector(), dtype=operator.dtype, device=operator.device)
            vector = run.basis[: run.steps].mT.mv(coefficients)
        return spectrum, vector / torch.linalg.vector_norm(vector)


class _Run:
    """Lanczos on A'A with full orthogonalisation, from one start."""

    def __init__(self, operator: LinearOperator, generator: torch.Generator | None, exponent: int = 0):
        self.operator = operator
        self.factor = 2.0**exponent
        m, self.n = operator.shape
        self.from_outputs = m < self.n
        self.roundoff = torch.finfo(operator.dtype).eps / 2
        self.shift = rounding(operator.shape, operator.dtype)
        self.diagonal: list[float] = []
        self.off: list[float] = []
        self.largest = 0.0
        self.rest: Tensor | None = None
        x = draw(m if self.from_outputs else self.n, operator, generator)
        z = operator.adjoint(x * self.factor) if self.from_outputs else x
        norm = _norm(z)
        self.exhausted = not norm > 0
        # y_0 / g, per sigma if the start was among the outputs.
        self.first = 1 / norm if norm > 0 else math.inf
        self.basis = torch.empty(32, self.n, dtype=operator.dtype, device=operator.device)
        torch.mul(z, self.first, out=self.basis[0])

    @property
    def steps(self) -> int:
        """Products with A'A so far."""
        return len(self.diagonal)

    def step(self) -> None:
        """One product with A'A."""
        q = self.basis[self.steps]
        if self.factor == 1:
            z = self.operator.gram(q)
        else:
            z = self.operator.adjoint(self.operator.matvec(q * self.factor) * self.factor)
        # First what the recurrence takes away, then the rest: all at once would multiply what is not orthogonal yet by
        # diagonal / off-diagonal, which is 2 or more for a Gram matrix.
        k = self.steps + 1
        z, recurrence = _removed(z, self.basis[max(k - 2, 0) : k])
        z, self.rest = _removed(z, self.basis[:k])
        along = recurrence[-1].item()
        norm = _norm(z)
        self.diagonal.append(along)
        self.off.append(norm)
        self.largest = max(self.largest, along)
        # What is left of a space that is exhausted is rounding.
        self.exhausted = not norm > 64 * self.roundoff * self.largest
        if not self.exhausted and k < self.n:
            if k == len(self.basis):
                self.basis = torch.cat([self.basis, torch.empty_like(self.basis)])
            torch.mul(z, 1 / norm, out=self.basis[k])

    def largest_ritz(self) -> float:
        """The largest Ritz value."""
        if not self.diagonal:
            return 0.0
        select = (self.steps - 1, self.steps - 1)
        values = eigh_tridiagonal(self.diagonal, self.off[:-1], eigvals_only=True, select="i", select_range=select)
        return max(float(values[0]), 0.0)

    def ritz_vector(self) -> list[float]:
        """The vector of the largest Ritz value, in the basis."""
        select = (self.steps - 1, self.steps - 1)
        vectors = eigh_tridiagonal(self.diagonal, self.off[:-1], select="i", select_range=select)[1]
        vector: list[float] = vectors[:, 0].tolist()
        return vector

    def noise(self) -> float:
        """Error of a step along any one direction, per lambda."""
        if self.rest is None or self.steps < 3 or not self.largest > 0:
            return 2 * self.roundoff
        return max(2 * self.roundoff, 2 * self.rest[:-2].abs().max().item() / self.largest)

    def missing(self, candidate: float, least: float, noise: float) -> float:
        """Steps until a top eigenvalue of A'A as large as the candidate is excluded.

        0 if it is by now, infinity if rounding hides too much of it for this candidate ever to be.

        Args:
            candidate: Above the largest Ritz value.
            least: What the squared component g^2 of the top vector in the start is at least.
            noise: Of a step.
        """
        if self.first == math.inf:
            return 0.0
        if not candidate > 0:
            return math.inf
        # y is what the top vector's component grows from, h what rounding in every step may have taken away from it:
        # both are sums of positive terms for candidates above the largest Ritz value.
        y, h = math.sqrt(least * candidate if self.from_outputs else least) * self.first, 2 * self.roundoff
        before_y = before_h = before = 0.0
        total = max(y - h, 0.0) ** 2
        error = noise * candidate
        for a, b in zip(self.diagonal, self.off, strict=True):
            if total > _FULL:
                return 0.0
            b = max(b, error * 1e-3)  # exactly zero is no more exact than the rest
            above = candidate - a
            y, before_y = (above * y - before * before_y) / b, y
            h, before_h = (above * h - before * before_h + error) / b, h
            before = b
            total += max(y - h, 0.0) ** 2
        if total > _FULL:
            return 0.0
        if not y > h or math.isnan(y - h):
            return math.inf  # what follows adds nothing: h grows as y does, and a little in every step
        if not before_y > 0:
            return 1.0
        growth = math.log(max(y / before_y, 1.01))
        return min(max(math.log(_FULL / max(total, 1e-300)) / (2 * growth), 1e-9), 1e9)


def _bracket(
    operator: LinearOperator, tolerance: float, failure: float, max_steps: int, generator: torch.Generator | None
) -> tuple[Spectrum, _Run | None]:
    """The spectrum, and the run with the largest Ritz value (None for a zero operator)."""
    if not (tolerance > 0 and 0 < failure < 1 and max_steps > 0):
        raise ValueError(
            f"tolerance and failure must be positive, failure below 1, max_steps 1 or more: got {tolerance}, {failure}"
            f", {max_steps}"
        )
    if not min(operator.shape):
        raise ValueError(f"an operator of shape {operator.shape} has no singular values")
    run = _first_step(operator, generator)
    if run is None:
        zero = torch.zeros(1, dtype=torch.float64)
        return Spectrum.of(zero, method="zero", lower=zero, upper=zero, residual=zero), None
    # Of the Ritz value and the excluded one.
    width = max((1 + tolerance * (1 - 1e-9)) ** 2 * (1 - run.shift) / (1 + run.shift), 1 + run.shift)
    value = _extend([], run, width, _least(failure, 1), max_steps)
    smallest = math.sqrt(_least(failure, 1) * (value if run.from_outputs else 1)) * run.first
    if run.steps < run.n and not run.exhausted and smallest <= 2 * run.roundoff:
        raise ValueError(
            f"failure={failure:g} is more than one random start of {run.n} elements in {operator.dtype} can promise: "
            "allow a larger one, or take an operator in float64"
        )
    runs = [run]
    while runs[0].exhausted and run.steps < run.n and len(runs) < _STARTS:
        left = max_steps - sum(earlier.steps for earlier in runs)
        if left <= 0:
            break
        runs.append(_Run(operator, generator, round(math.log2(run.factor))))
        value = _extend(runs[:-1], runs[-1], width, _least(failure, _STARTS), left)
    exact = run.steps == run.n  # the basis is complete
    upper = value if exact else _upper(runs, value, width, _least(failure, len(runs)))
    best = max(runs, key=lambda each: each.largest_ritz())
    steps = sum(each.steps for each in runs)
    method = f"Lanczos, {steps} step{'s' if steps > 1 else ''}"
    method += ", exact to rounding" if exact else f", upper bound with failure probability {failure:g}"
    return _spectrum(best, value, upper, tolerance, method), best


def _extend(runs: list[_Run], run: _Run, width: float, least: float, steps: int) -> float:
    """Step until everything above width x the largest Ritz value of all runs is excluded; that Ritz value."""
    known = max((earlier.largest_ritz() for earlier in runs), default=0.0)
    due = min(run.steps, 1) + 3 if not runs else 0
    while True:
        end = run.exhausted or run.steps == min(steps, run.n)
        if end or run.steps >= due:
            value = max(known, run.largest_ritz())
            missing = run.missing(value * width, least, run.noise())
            if end or not missing:
                return value
            # Growth speeds up as the run finds the top: the estimate is never trusted to the last step.
            due = run.steps + max(1, int(min(0.5 * missing, run.steps // 4)))
        run.step()


def _first_step(operator: LinearOperator, generator: torch.Generator | None) -> _Run | None:
    """A run whose squares neither overflow nor vanish, one step done; None if the operator is zero."""
    run = _Run(operator, generator)
    if not run.exhausted:
        run.step()
    # In float32 the squares of elements of A'A q must be normal numbers.
    if run.diagonal and 1e-14 < run.diagonal[0] < 1e14 and (not run.from_outputs or 1e-8 < run.first < 1e8):
        return run
    exponent = exponent_of(operator, generator)
    if exponent is None:
        return None
    run = _Run(operator, generator, exponent)
    run.step()
    return run


def exponent_of(operator: LinearOperator, generator: torch.Generator | None) -> int | None:
    """The power of two that brings the operator's largest products to about 1."""
    x = draw(operator.shape[1], operator, generator)
    for down in (0, -100):
        largest = operator.matvec(x * 2.0**down).abs().amax().item()
        if largest == 0:
            return None
        if math.isfinite(largest):
            bound = 110 if operator.dtype == torch.float32 else 960  # the vectors must stay normal numbers too
            return max(-bound, min(bound, down - math.frexp(largest)[1]))
    if isinstance(operator, Dense):
        bad = sum(int((~block.float().isfinite()).sum()) for block in operator.rows())
        raise ValueError(f"{bad} of {operator.weight.numel()} weights are nan or infinite: no spectrum")
    raise ValueError("products with the operator are nan or infinite: no spectrum")


def _upper(runs: list[_Run], value: float, width: float, least: float) -> float:
    """The smallest excluded eigenvalue, to 2% of its distance from the Ritz value; `width` times that at most."""
    noise = [run.noise() for run in runs]

    def excluded(distance: float) -> bool:
        candidate = value * (1 + distance)
        return not any(run.missing(candidate, least, of_run) for run, of_run in zip(runs, noise, strict=True))

    low = 4 * runs[0].roundoff
    if excluded(low):
        return value * (1 + low)
    high = max(width - 1, 2 * low)
    while not excluded(high):
        low, high = high, 2 * high
        if high > 1e30:
            return math.inf
    while high > 1.02 * low:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if excluded(middle) else (middle, high)
    return value * (1 + high)


def _spectrum(run: _Run, value: float, upper: float, tolerance: float, method: str) -> Spectrum:
    sigma = math.sqrt(value)
    low, high = math.sqrt(max(value * (1 - run.shift), 0.0)), math.sqrt(upper * (1 + run.shift))
    if high > (1 + tolerance) * low * (1 + 1e-12):
        method += f", tolerance {tolerance:g} not reached"
    residual = run.off[-1] * abs(run.ritz_vector()[-1]) / value + run.shift
    numbers = (sigma / run.factor, low / run.factor, high / run.factor, residual)
    tensors = [torch.tensor([number], dtype=torch.float64) for number in numbers]
    return Spectrum.of(tensors[0], method=method, lower=tensors[1], upper=tensors[2], residual=tensors[3])


def draw(count: int, operator: LinearOperator, generator: torch.Generator | None) -> Float[Tensor, "count"]:
    """A Gaussian vector for the operator; the same on every device."""
    device = generator.device if generator is not None else torch.device("cpu")
    return torch.randn(count, generator=generator, dtype=operator.dtype, device=device).to(operator.device)


@lru_cache
def _least(failure: float, starts: int) -> float:
    """What the squared components of the top vector in the starts add up to at least, but with this probability."""
    return float(chi2.ppf(failure * _SHARES[starts - 1], starts))


def _removed(z: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Without its components along the basis, and these. Not in place: an operator may give back what it was given."""
    components = basis.mv(z)
    return torch.addmv(z, basis.mT, components, alpha=-1), components


def _norm(z: Tensor) -> float:
    if len(z) > 1 << 16:  # float32 sums this long are biased
        return float(torch.linalg.vector_norm(z, dtype=torch.float64))
    return math.sqrt(torch.dot(z, z).item())
