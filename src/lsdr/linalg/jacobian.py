"""Products with the Jacobian of a network at many inputs at once, by whatever the network supports."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad

from lsdr.linalg.forward_mode import forward_mode

Estimator = Literal["auto", "forward_mode", "finite_difference"]
WORDS = {"forward_mode": "forward mode", "finite_difference": "finite differences"}
"""What an estimator is called in sentences."""

# Candidate steps of central differences by the precision of the answers, relative to an input's root mean square. Below
# the smallest, differences are rounding; at the largest, curvature shows in any network.
_STEPS = {
    torch.float64: (1e-6, 1e-5, 1e-4, 1e-3, 1e-2),
    torch.float32: (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
    torch.float16: (1e-2, 3e-2, 1e-1, 3e-1),
    torch.bfloat16: (3e-2, 1e-1, 3e-1),
}
# How far forward mode may be from finite differences, beside what these are known to be off themselves.
_AGREEMENT = {torch.float64: 1e-3, torch.float32: 0.02, torch.float16: 0.1, torch.bfloat16: 0.1}


class Jacobian:
    r"""The Jacobians :math:`J_i = \partial f(x_i) / \partial x_i` of a map at b inputs, through products alone.

    :math:`J v` (`matvec`) by forward-mode differentiation, exact to rounding, or by central finite differences

    .. math:: J v \approx \frac{f(x + h v) - f(x - h v)}{2 h}

    which any network allows, fused attention kernels included; :math:`J' u` (`adjoint`) by one backward pass to the
    inputs, exact either way. The step h is found by measurement, for each input its own: of several relative to the
    input's root mean square, the one at which the difference along a random direction changes least when h grows to
    the next. So curvature (low noise), half precision and TF32 need no table.

    "auto" takes forward mode where it runs and agrees with the finite difference along that direction; elsewhere,
    finite differences. `why` says what happened. Attention runs by its plain formula under forward mode.

    Nothing accumulates in parameters and no flag changes; it may be used under `torch.no_grad`. Put the network into
    evaluation mode first: inputs must not see each other, nor answers be random.

    Cost per vector: 2 evaluations of f by differences; about 2 on a GPU and 4 on a CPU in forward mode; 2 to 3 for the
    adjoint. At the start 2 evaluations of each input, and 8 to 12 more for "auto" and "finite_difference".

    Source: forward mode and adjoints are torch's; that differences need a step of 0.1 in bfloat16 (of 1e-2 they are 40
    % off) was measured on convolutional networks.

    Args:
        function: The map, from (m, \*dims) to the same shape; called as function(rows, \*given), the rows being any of
            the inputs, repeated.
        x: The inputs, shape (b, \*dims); half precision is raised to float32.
        given: What else the map is called with, one entry per input in each, as noise levels and labels.
        estimator: "forward_mode", "finite_difference", or "auto" to choose.
        step: Of finite differences, relative to each input's root mean square; None measures it.
        batch: Rows in one evaluation, at most.
        precision: In which type the map computes, if less than its answers show; None for these and autocast.

    Raises:
        ValueError: If there is no input, an argument is not one of those, or the map returns another shape, values that
            are not finite, or two answers for one input, alone and among others.
        RuntimeError: If forward mode is asked for and does not run.

    Example:
        >>> square = Jacobian(lambda x: x.square(), torch.tensor([[1.0, 3.0]]))
        >>> square.matvec(torch.ones(1, 1, 2)), square.estimator
        (tensor([[[2., 6.]]]), 'forward_mode')
    """

    estimator: Literal["forward_mode", "finite_difference"]
    """What gives the products J v."""
    why: str
    """Why it is that one, in words."""
    error: Float[Tensor, " b"]
    """How far products J v are known to be off, relatively, along a random direction at each input; 0: to rounding."""

    def __init__(
        self,
        function: Callable[..., Tensor],
        x: Float[Tensor, "b *dims"],
        *,
        given: Sequence[Tensor] = (),
        estimator: Estimator = "auto",
        step: float | None = None,
        batch: int = 64,
        precision: torch.dtype | None = None,
    ):
        if estimator not in ("auto", *WORDS):
            raise ValueError(f"estimator is {estimator!r}; expected 'auto', 'forward_mode' or 'finite_difference'")
        if x.ndim < 2 or not x.numel():
            raise ValueError(f"x has shape {tuple(x.shape)}; pass at least one input, shape (b, *dims)")
        if batch < 1 or (step is not None and not step > 0):
            raise ValueError(f"batch must be 1 or more and step positive, got {batch} and {step}")
        wrong = [tuple(each.shape) for each in given if each.ndim < 1 or len(each) != len(x)]
        if wrong:
            raise ValueError(f"what is given must have one entry for each of the {len(x)} inputs, got shapes {wrong}")
        self._function, self._batch = function, batch
        with torch.inference_mode(False):
            self._x = x.detach().to(torch.promote_types(x.dtype, torch.float32)).clone()
            self._given = tuple(each.detach().clone() for each in given)
        size = self._x.flatten(1).double().square().mean(1).sqrt()
        self._size = torch.where(size > 0, size, 1.0)
        self._precision = self._check(precision)
        self._choose(estimator, step)

    @property
    def shape(self) -> tuple[int, int]:
        """How many inputs, and of how many values each."""
        return len(self._x), self._x[0].numel()

    def matvec(self, vectors: Float[Tensor, "b k d"]) -> Float[Tensor, "b k d"]:
        """J v for k vectors at each input, in the precision of the inputs (float32 or better).

        Raises:
            ValueError: If the vectors are not (b, k, d), or the product is not finite.
        """
        if self.estimator == "forward_mode":
            return self._each(vectors, self._forward, self._batch)
        return self._differences(vectors, self._step)

    def adjoint(self, vectors: Float[Tensor, "b k d"]) -> Float[Tensor, "b k d"]:
        """J' u for k vectors at each input, by one backward pass for each.

        Raises:
            ValueError: If the vectors are not (b, k, d), the product is not finite, or the map cuts the graph between
                its input and its output.
        """
        return self._each(vectors, self._backward, self._batch)

    def _check(self, told: torch.dtype | None) -> torch.dtype:
        """In what precision the map computes, seen that its answers are what they should be."""
        kinds = set()
        with _measuring():
            for rows in torch.arange(len(self._x), device=self._x.device).split(self._batch):
                where, given = self._x[rows], [each[rows] for each in self._given]
                first = self._function(where, *given)
                if first.shape != where.shape:
                    raise ValueError(
                        f"the map returned shape {tuple(first.shape)} for inputs of shape {tuple(where.shape)}; "
                        "its Jacobian is taken where both are the same"
                    )
                if not bool(first.isfinite().all()):
                    raise ValueError(
                        "the map returned values that are not finite, so it has no Jacobian there; has the model "
                        "diverged?"
                    )
                kinds.add(_least(told, first.dtype))
                # Again, half of them alone: what is random shows, and what the others change, as batch statistics do.
                half = slice((len(rows) + 1) // 2)
                once, again = first[half].float(), self._function(where[half], *[each[half] for each in given]).float()
                apart = float((once - again).norm() / once.norm().clamp_min(1e-30))
                if apart > max(1e-3, *(8 * torch.finfo(each).eps for each in kinds)):
                    raise ValueError(
                        f"the map gave two answers for the same input ({apart:.2g} apart, relatively), alone and among "
                        "others: put the model into evaluation mode (as the attribute `model` of a denoiser it is put "
                        "there) and take what is random out of it"
                    )
        return max(kinds, key=lambda each: torch.finfo(each).eps)

    def _choose(self, estimator: Estimator, step: float | None) -> None:
        """Settle on an estimator, and on the step where it is needed."""
        count, d = self.shape
        generator = torch.Generator().manual_seed(0)  # its own, so that choosing is the same every time
        probe = torch.randn(count, 1, d, generator=generator, dtype=torch.float64).to(self._x)
        self.error = torch.zeros_like(self._size)
        if estimator == "forward_mode":
            try:
                self._each(probe, self._forward, self._batch)
            except Exception as failure:
                raise RuntimeError(
                    f"forward mode was asked for and failed ({_first_line(failure)}): estimator='finite_difference' "
                    "needs nothing but evaluations"
                ) from failure
            self.estimator, self.why = "forward_mode", "forward mode, as asked"
            return
        difference, error = self._find_step(probe, step)
        differences = f"finite differences of relative step {float(self._step.median()):.1g}"
        if error is not None:
            differences += f", known to {float(error.median()):.1g}"
        if error is not None:
            self.error = error
        if estimator == "finite_difference":
            self.estimator, self.why = "finite_difference", f"{differences}, as asked"
            return
        try:
            tangent = self._each(probe, self._forward, self._batch)
        except Exception as failure:
            self.estimator, self.why = (
                "finite_difference",
                f"forward mode failed ({_first_line(failure)}): {differences}",
            )
            return
        apart = _relative(tangent - difference, torch.maximum(_norm(tangent), _norm(difference)))
        allowed = _AGREEMENT[self._precision] + (0 if error is None else 3 * error)
        if bool((apart <= allowed).all()):
            self.estimator, self.error = "forward_mode", torch.zeros_like(self._size)
            self.why = f"forward mode, within {float(apart.max()):.1g} of finite differences"
        else:
            self.estimator = "finite_difference"
            self.why = f"forward mode is {float(apart.max()):.1g} off what the map really does: {differences}"

    def _find_step(self, probe: Tensor, step: float | None) -> tuple[Tensor, Tensor | None]:
        """Set the step of each input; the difference along the probe at it, and by how much that is off."""
        if step is not None:
            self._step = torch.full_like(self._size, step)
            return self._differences(probe, self._step), None
        candidates = _STEPS[self._precision]
        found = torch.stack([self._differences(probe, torch.full_like(self._size, each)) for each in candidates])
        best = torch.stack([_norm(b - a) for a, b in pairwise(found)]).argmin(0)
        self._step = torch.tensor(candidates, dtype=torch.float64, device=best.device)[best]
        each = torch.arange(len(best), device=best.device)
        here, larger = found[best, each], found[best + 1, each]
        return here, _relative(larger - here, torch.maximum(_norm(here), _norm(larger)))

    def _differences(self, vectors: Tensor, step: Tensor) -> Tensor:
        def product(where: Tensor, direction: Tensor, given: list[Tensor], rows: Tensor) -> Tensor:
            length = direction.flatten(1).double().norm(dim=1)
            unit = torch.where(length > 0, (step * self._size)[rows] * self.shape[1] ** 0.5 / length, 0)
            change = (unit.view(-1, *[1] * (where.ndim - 1)) * direction).to(where)
            twice = [torch.cat([each, each]) for each in given]
            above, below = self._function(torch.cat([where + change, where - change]), *twice).double().chunk(2)
            scale = torch.where(length > 0, 0.5 / unit, 0)
            return (above - below) * scale.view(-1, *[1] * (where.ndim - 1))

        return self._each(vectors, product, max(1, self._batch // 2))

    def _forward(self, where: Tensor, direction: Tensor, given: list[Tensor], rows: Tensor) -> Tensor:
        with forward_mode():
            answer = self._function(forward_ad.make_dual(where, direction), *given)
            tangent: Tensor | None = forward_ad.unpack_dual(answer).tangent
        if tangent is None:
            self._must_be_constant(where, given, rows, "loses the tangent between its input and its output: J v")
            return torch.zeros_like(where)
        return tangent

    def _backward(self, where: Tensor, direction: Tensor, given: list[Tensor], rows: Tensor) -> Tensor:
        with torch.enable_grad():
            where = where.requires_grad_()
            answer = self._function(where, *given)
            if answer.requires_grad:
                (gradient,) = torch.autograd.grad(answer, where, direction.to(answer.dtype), allow_unused=True)
                if gradient is not None:
                    return gradient
        self._must_be_constant(where.detach(), given, rows, "cuts the graph between its input and its output: J'u")
        return torch.zeros_like(where)

    def _must_be_constant(self, where: Tensor, given: list[Tensor], rows: Tensor, otherwise: str) -> None:
        """Refuse a map that has no derivative and is no constant."""
        other = where + self._size[rows].view(-1, *[1] * (where.ndim - 1)).to(where) * 0.1
        if not torch.equal(self._function(other, *given), self._function(where, *given)):
            raise ValueError(
                f"the map {otherwise} cannot be had; it must not run under no_grad or inference_mode, detach or "
                "convert to numpy"
            )

    def _each(
        self, vectors: Tensor, product: Callable[[Tensor, Tensor, list[Tensor], Tensor], Tensor], batch: int
    ) -> Tensor:
        """Apply a product to every vector, `batch` rows at a time."""
        count, d = self.shape
        if vectors.ndim != 3 or vectors.shape[0] != count or vectors.shape[2] != d:
            raise ValueError(f"vectors have shape {tuple(vectors.shape)}; expected ({count}, k, {d})")
        owner = torch.arange(count, device=self._x.device).repeat_interleave(vectors.shape[1])
        flat = vectors.detach().to(self._x).flatten(0, 1)
        results = []
        with _measuring():
            for part in torch.arange(len(flat), device=flat.device).split(batch):
                rows = owner[part]
                where, given = self._x[rows], [each[rows] for each in self._given]
                result = product(where, flat[part].view_as(where), given, rows)
                results.append(result.detach().flatten(1).to(self._x))
        products = torch.cat(results)
        if not bool(products.isfinite().all()):
            raise ValueError("products with the map's Jacobian are nan or infinite, as where a root or a norm is of 0")
        return products.view_as(vectors)


@contextmanager
def _measuring() -> Iterator[None]:
    with torch.inference_mode(False), torch.no_grad():
        yield


def _least(told: torch.dtype | None, answered: torch.dtype) -> torch.dtype:
    """The coarsest of the types in which there is computing."""
    types = [answered if answered in _STEPS else torch.float32]
    if told is not None:
        types.append(told)
    types += [torch.get_autocast_dtype(each) for each in ("cpu", "cuda") if torch.is_autocast_enabled(each)]
    return max((each for each in types if each in _STEPS), key=lambda each: torch.finfo(each).eps)


def _norm(vectors: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(vectors.double(), dim=(-2, -1))
    return norms


def _relative(difference: Tensor, largest: Tensor) -> Tensor:
    """The size of a difference per input, relative to the larger of what is compared; 0 of two zeros."""
    return torch.where(largest > 0, _norm(difference) / torch.where(largest > 0, largest, 1), 0)


def _first_line(error: Exception) -> str:
    line = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {line[:160]}"
