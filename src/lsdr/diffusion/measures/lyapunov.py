"""Finite-time Lyapunov exponents of a sampler."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.probes.conditioning import Given, each_tensor

Step = Callable[..., Tensor]
_DIFFERENCE = {torch.float64: 1e-6, torch.float32: 1e-3}


@dataclass(frozen=True)
class Lyapunov:
    """Leading finite-time Lyapunov exponents: lower bounds, with a residual that tells how far they had converged."""

    exponents: Float[Tensor, "n k"]
    """Per image, descending, per step; the first is ln(sigma_max)/N of the product of N step Jacobians. All nan if a
    gradient is not finite."""
    residual: float
    """Largest change of a leading exponent in the last round; 0 once converged, nan after a single round."""


def lyapunov(
    steps: Sequence[Step],
    start: Float[Tensor, "n ..."],
    *,
    conditioning: Given = None,
    directions: int = 2,
    iterations: int = 3,
    generator: torch.Generator | None = None,
) -> Lyapunov:
    r"""Leading finite-time Lyapunov exponents of a chain of maps, by subspace iteration through its steps.

    .. math::
        \lambda_j = \frac1N \ln \sigma_j(J_N \cdots J_1), \qquad J_i = \frac{\partial f_i}{\partial x}(x_{i-1})

    in nats per step: positive where the chain stretches small differences, negative where it contracts them. Never
    forms a Jacobian. One round of block power iteration on the product J applies J to k orthonormal directions by
    finite differences, then J transposed to the result by one backward pass per step. Both re-orthonormalise at
    every step by QR (Benettin), since the columns of a plain product all turn to the leading direction. The value comes
    from the backward passes, which are exact: sigma(J'Q) <= sigma(J) for orthonormal Q, so it is a lower bound (up to
    rounding) that grows to the truth, its error falling by about (sigma_{k+1}/sigma_1)^4 a round. Cost per round: k
    forward and k forward-and-backward passes through the chain per image, the memory of one step's graph.

    Gradients are taken to the inputs alone: nothing accumulates in parameters, and none of their flags changes. A
    single backward pass is all that is asked of the model, so fused attention works.

    Source: Benettin et al., Meccanica 15 (1980), for the repeated QR; as a measure of diffusion samplers arXiv
    2508.07581. Benettin's exponents are limits of long time and depend on the random first directions when the chain
    is short; a sampler has some twenty steps, so we return singular values of the whole product instead.

    Args:
        steps: The chain; each maps a batch of states to the next, one image independent of another; called as
            step(state), or as step(state, conditioning) if there is any.
        start: Where the chain starts, in float32 or float64.
        conditioning: What each image is conditioned on.
        directions: How many leading exponents, k.
        iterations: Rounds of iteration.
        generator: Source of the first directions.

    Returns:
        The exponents per image, and by how much the leading one changed last.

    Raises:
        ValueError: If there is nothing to measure (no step, no image, not 1 <= directions <= values in an image), the
            precision is neither float32 nor float64, the chain is not finite, or a step cuts the graph.

    Example:
        >>> stretch = torch.tensor([2.0, 0.5, 0.1], dtype=torch.float64)
        >>> found = lyapunov([lambda x: x * stretch] * 3, torch.ones(1, 3, dtype=torch.float64), directions=2)
        >>> [round(float(value), 4) for value in found.exponents[0].exp()]
        [2.0, 0.5]
    """
    if not steps or len(start) == 0 or iterations < 1:
        raise ValueError(f"need steps, images and iterations, got {len(steps)}, {len(start)} and {iterations}")
    dimension = start[0].numel()
    if not 1 <= directions <= dimension:
        raise ValueError(f"directions must be between 1 and the {dimension} values of an image, got {directions}")
    if start.dtype not in _DIFFERENCE:
        raise ValueError(f"exponents need float32 or float64, got {start.dtype}; convert the start with .float()")
    states = [start.detach()]
    given = () if conditioning is None else (conditioning,)
    with torch.no_grad():
        for map_ in steps:
            states.append(map_(states[-1], *given))
    if not all(bool(state.isfinite().all()) for state in states):
        raise ValueError(
            "the chain reaches values that are not finite, so it has no exponents; has the model diverged?"
        )
    blocks = torch.randn(len(start), dimension, directions, generator=generator, dtype=torch.float64).to(start.device)
    basis = torch.linalg.qr(blocks).Q
    leading: list[Tensor] = []
    for _ in range(iterations):
        for map_, state, after in zip(steps, states[:-1], states[1:], strict=True):
            basis = torch.linalg.qr(_push(map_, state, after, given, basis)).Q
        # J'Q = (J_1' ... J_N') Q = basis . triangle, with the triangle gathered factor by factor.
        triangle = torch.eye(directions, dtype=torch.float64, device=start.device).expand(len(start), -1, -1)
        for map_, state in zip(reversed(steps), reversed(states[:-1]), strict=True):
            basis, factor = torch.linalg.qr(_pull(map_, state, given, basis))
            triangle = factor @ triangle
        if not bool(triangle.isfinite().all()):  # a gradient overflowed: nothing can be said
            return Lyapunov(torch.full_like(triangle[:, 0], torch.nan), float("nan"))
        leading.append(torch.linalg.svdvals(triangle).log() / len(steps))
    residual = float((leading[-1] - leading[-2])[:, 0].abs().max()) if iterations > 1 else float("nan")
    return Lyapunov(leading[-1], residual)


@torch.no_grad()
def _push(
    map_: Step, state: Tensor, after: Tensor, given: tuple[Any, ...], basis: Float[Tensor, "n d k"]
) -> Float[Tensor, "n d k"]:
    """The step's Jacobian times each column, by one-sided differences: they steer only, so first order will do."""
    count = basis.shape[2]
    where, ends, *given_each = _repeat(count, state, after, *given)
    # Per pixel and relative to the state's own size: early states are noise of size sigma_max.
    size = state.flatten(1).double().square().mean(1).sqrt().clamp_min(1.0) * _DIFFERENCE[state.dtype]
    length = size.repeat_interleave(count)[:, None] * basis.shape[1] ** 0.5
    change = (_columns(basis) * length).view_as(where).to(where.dtype)
    moved = map_(where + change, *given_each).double() - ends.double()
    return _stack(moved.flatten(1) / length, count)


@torch.enable_grad()
def _pull(map_: Step, state: Tensor, given: tuple[Any, ...], basis: Float[Tensor, "n d k"]) -> Float[Tensor, "n d k"]:
    """The step's transposed Jacobian times each column, by one backward pass."""
    count = basis.shape[2]
    where, *given_each = _repeat(count, state, *given)
    after = map_(where.requires_grad_(), *given_each)
    if not after.requires_grad:
        raise ValueError("a step cut the graph between its input and its output; it must not run under no_grad")
    (gradient,) = torch.autograd.grad(after, where, _columns(basis).view_as(after).to(after.dtype))
    return _stack(gradient.double().flatten(1), count)


def _repeat(count: int, *items: Any) -> list[Any]:
    """One copy of every image (and of what it is conditioned on) per direction."""
    return [each_tensor(lambda name, each: each.detach().repeat_interleave(count, dim=0), item) for item in items]


def _columns(basis: Float[Tensor, "n d k"]) -> Float[Tensor, "nk d"]:
    """The columns of every image as rows of one batch, in the order of `_repeat`."""
    return basis.transpose(1, 2).flatten(0, 1)


def _stack(rows: Float[Tensor, "nk d"], count: int) -> Float[Tensor, "n d k"]:
    """The inverse of `_columns`."""
    return rows.view(-1, count, rows.shape[1]).transpose(1, 2)
