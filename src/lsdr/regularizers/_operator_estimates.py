"""Products with the Jacobian of a denoiser's step, with a gradient to the parameters."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from lsdr.linalg.forward_mode import forward_mode
from lsdr.regularizers._passes import Passes

Estimator = Literal["finite_difference", "forward_mode", "reverse_mode"]


@dataclass
class StepOperator:
    r"""The Jacobian :math:`J = p I + s J_D` of a step at some examples, as a function.

    Args:
        passes: Runs the denoiser D.
        x: Where, any floating type; the denoiser is given that type.
        identity: p of each example.
        slope: s of each example.
        step: Length of the finite difference for a direction of rms 1, in the units of x, for each example.
        estimator: How.
        denoised: D(x) with its graph from the training pass, or None where that is another function than `passes`.
        two_sided: Whether finite differences go both ways: twice the cost, for the square of the curvature's error.
        retain: Whether one forward pass serves several backward passes to the input; found out if it does not.
    """

    passes: Passes
    x: Float[Tensor, "n *dims"]
    identity: Float[Tensor, " n"]
    slope: Float[Tensor, " n"]
    step: Float[Tensor, " n"]
    estimator: Estimator
    denoised: Float[Tensor, "n *dims"] | None
    two_sided: bool = False
    retain: bool = True
    _recomputed: Tensor | None = None
    _graph: tuple[Tensor, Tensor] | None = None

    def check_estimate(self) -> None:
        """Make sure that `denoised` is the denoiser's answer here: a difference would be all error. One pass.

        Raises:
            ValueError: If it is not.
        """
        if self.denoised is None or self.two_sided or self.estimator != "finite_difference":
            return
        # Not under no_grad, for which torch.compile would compile the model once more.
        difference = self.passes(self.x).detach() - self.denoised.detach()
        error = difference.flatten(1).square().mean(1).sqrt() / self.step
        if not self.passes.random and bool((error > 1).any()):
            raise ValueError(
                f"denoised is not what denoiser(noisy, sigma, conditioning) gives: the two differ by up to "
                f"{float(error.max()):.3g} times the step of the finite difference; pass the estimate of these very "
                "arguments, made in the same mode and precision, or leave denoised out"
            )

    def product(self, v: Float[Tensor, "n *dims"]) -> Float[Tensor, "n *dims"]:
        r"""J v with a graph to the parameters; in reverse mode J'v."""
        if self.estimator == "forward_mode":
            change = self._forward_mode(v)
        elif self.estimator == "reverse_mode":
            change = self._reverse_mode(v)
        else:
            change = self._difference(v)
        return self._step(v, change)

    def form(self, u: Float[Tensor, "n *dims"], v: Float[Tensor, "n *dims"]) -> Float[Tensor, " n"]:
        """Give u'J v with a graph to the parameters, u and v being held fixed."""
        return dot(self.product(u), v) if self.estimator == "reverse_mode" else dot(u, self.product(v))

    def apply(self, v: Float[Tensor, "n *dims"]) -> Float[Tensor, "n *dims"]:
        """J v without a graph."""
        with torch.no_grad():
            if self.estimator == "forward_mode":
                return self._step(v, self._forward_mode(v))
            h = self._step_of(v)
            return self._step(v, (self.passes(self._moved(v, h)) - self.estimate()) / h)

    def estimate(self) -> Float[Tensor, "n *dims"]:
        """D(x) without a graph to the parameters."""
        return self._input_graph()[1].detach()

    def adjoint(self, u: Float[Tensor, "n *dims"]) -> Float[Tensor, "n *dims"]:
        """J'u without a graph: one backward pass to the input, which leaves parameters alone."""
        try:
            change = self._pulled_back(u)
        except RuntimeError as error:
            # What torch.compile compiled may give its memory back after one backward pass.
            if not self.retain or "donated" not in str(error):
                raise
            self.retain, self._graph = False, None
            change = self._pulled_back(u)
        return self._step(u, change)

    def describe(self) -> str:
        """How this was measured, in words."""
        if self.estimator != "finite_difference":
            return f"{self.estimator.replace('_', ' ')} differentiation"
        against = "the training pass" if self._recomputed is None else "a pass of their own"
        return f"finite differences, {'two-sided' if self.two_sided else f'from {against}'}"

    def free(self) -> None:
        """Let go of the graph to the input."""
        self._graph = None

    def _step(self, v: Tensor, change: Tensor) -> Tensor:
        return per_example(self.identity, v) * v + per_example(self.slope, v) * change

    def _step_of(self, v: Tensor) -> Tensor:
        """The length for this direction: a unit vector goes as far as one of rms 1."""
        rms = v.flatten(1).square().mean(1).sqrt()
        return per_example(self.step / torch.where(rms > 0, rms, 1), v)

    def _moved(self, v: Tensor, h: Tensor) -> Tensor:
        return (self.x.to(v.dtype) + h * v).to(self.x.dtype)

    def _difference(self, v: Tensor) -> Tensor:
        h = self._step_of(v)
        moved = self.passes(self._moved(v, h))
        if self.two_sided:
            return (moved - self.passes(self._moved(v, -h))) / (2 * h)
        # A pass that drew random numbers is another function than the training pass was, whose numbers are unknown.
        if self.denoised is not None and not self.passes.random:
            return (moved - self.denoised) / h
        if self._recomputed is None:
            self._recomputed = self.passes(self.x)
        return (moved - self._recomputed) / h

    def _forward_mode(self, v: Tensor) -> Tensor:
        with _explained("forward_mode"), forward_mode():
            with warnings.catch_warnings():  # torch warns of its own formulas at their first use
                warnings.simplefilter("ignore", DeprecationWarning)
                x = forward_ad.make_dual(self.x, v.to(self.x.dtype).contiguous())
            tangent = forward_ad.unpack_dual(self.passes(x)).tangent
        return torch.zeros_like(v) if tangent is None else tangent

    def _reverse_mode(self, u: Tensor) -> Tensor:
        create = torch.is_grad_enabled()
        with _explained("reverse_mode"), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            x = self.x.detach().requires_grad_()
            denoised = self.passes(x)
            found: Tensor = _input_gradient(denoised, x, u, create_graph=create)
        return found

    def _input_graph(self) -> tuple[Tensor, Tensor]:
        if self._graph is None:
            with torch.enable_grad():
                x = self.x.detach().requires_grad_()
                self._graph = x, self.passes(x)
        return self._graph

    def _pulled_back(self, u: Tensor) -> Tensor:
        x, denoised = self._input_graph()
        found = _input_gradient(denoised, x, u, retain_graph=self.retain)
        if not self.retain:
            self._graph = None
        return found


def dot(u: Float[Tensor, "n *dims"], v: Float[Tensor, "n *dims"]) -> Float[Tensor, " n"]:
    """Give u'v of each example."""
    return (u * v).flatten(1).sum(1)


def _input_gradient(denoised: Tensor, x: Tensor, u: Tensor, **options: bool) -> Tensor:
    if not denoised.requires_grad:
        return torch.zeros_like(u)
    (gradient,) = torch.autograd.grad(denoised, x, u.to(denoised.dtype), allow_unused=True, **options)
    return torch.zeros_like(u) if gradient is None else gradient.to(u.dtype)


@contextmanager
def _explained(estimator: str) -> Iterator[None]:
    """Say what to do where a model's operations have no such derivative."""
    try:
        yield
    except RuntimeError as error:
        raise RuntimeError(
            f"estimator={estimator!r} does not run through this model ({error}); use estimator='finite_difference'"
        ) from error


def per_example(values: Float[Tensor, " n"], like: Float[Tensor, "n *dims"]) -> Float[Tensor, "n ..."]:
    """Reshape a number for each example so that it multiplies images."""
    return values.reshape(-1, *([1] * (like.ndim - 1)))
