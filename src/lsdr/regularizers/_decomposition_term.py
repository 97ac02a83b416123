"""The attached side of `SpectralDecomposition`."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lsdr.probes.denoising_step import Frame, frame_factor
from lsdr.regularizers._operator_estimates import StepOperator, dot
from lsdr.regularizers._passes import Passes, beside_training
from lsdr.regularizers._ritz_vectors import ritz_vectors
from lsdr.regularizers._running_mean import RunningMean
from lsdr.regularizers._shares import Share, Shares
from lsdr.regularizers._step_context import checked_step, chosen_examples
from lsdr.regularizers._step_size import HALF, step_size, working_precision

Penalized = Literal["dispersion", "hinge", "frobenius", "asymmetry", "negative_eigenvalues"]
_LOG = logging.getLogger("lsdr")


@dataclass(frozen=True)
class Settings:
    """The fields of `SpectralDecomposition`."""

    of: Literal["eigenvalues", "singular_values"]
    penalty: Penalized
    weight: float | int
    k: int
    bound: float | int
    ratio: float | int
    frame: Frame
    fraction: float | int
    estimator: Literal["auto", "finite_difference", "forward_mode", "reverse_mode"]
    iterations: int
    step: float | None


class SpectralDecompositionTerm:
    """The penalty of one attached `SpectralDecomposition`.

    Attributes:
        chosen: How the operator was measured in the last call, in words.
    """

    def __init__(self, model: nn.Module, settings: Settings) -> None:
        self.values: dict[str, Tensor] = {}
        self.chosen = ""
        self._settings, self._shares = settings, Shares()
        self._retain, self._calls = True, 0
        self._mean = RunningMean() if settings.penalty == "dispersion" else None
        self._buffers = list(model.buffers())
        self._batch_norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        # The key is there from the start: a new one would compile the model's graph once more.
        self._seen: dict[str, torch.dtype | None] = {"precision": None}

    def __call__(self, **context: Any) -> Float[Tensor, ""]:
        """Give the weighted penalty, this call's share of it.

        Args:
            **context: `denoiser`, `noisy` and `sigma`; and what there is of `conditioning`, `denoised`, `sigma_next`
                and `generator`.
        """
        noisy, sigma, ratio = checked_step(context, self._settings.ratio)
        if self._settings.k > noisy[0].numel():
            raise ValueError(f"k={self._settings.k}, but an image has {noisy[0].numel()} numbers; lower k")
        share = self._shares.take(len(noisy), noisy.device)
        every = slice(None, None, round(1 / self._settings.fraction))
        directions = self._draw(noisy, share, context.get("generator"))[:, every]
        with beside_training(self._buffers, noisy.device):
            operator = self._operator(context, noisy, sigma, ratio, every)
            self._calls += 1
            if self._calls & (self._calls - 1) == 0:  # 1, 2, 4, 8 ...: a network may start blind to its conditioning
                operator.check_estimate()
            penalties, gains = self._measure(operator, directions, sigma[every])
            self._retain = operator.retain
            self._say(operator)
        if self._mean is not None:
            self._mean.close(share)
        mean = penalties.mean()
        self.values = {self._settings.penalty: mean.detach(), "gain": gains.detach().mean()}
        total = self._settings.weight * share.combine(mean)
        # A zero gradient adds nothing but can change the layout in which sums are taken, and so the last bit.
        return total if self._settings.weight else total.detach()

    def receive(self, name: str, module: nn.Module, output: Tensor) -> None:
        """Note that the model ran; traced by `torch.compile`."""
        self._shares.receive(name, module, output)

    def see_precision(self, name: str, module: nn.Module, output: Tensor) -> None:
        """Note in what precision the model works, which is not always to be seen from outside."""
        self._seen["precision"] = output.dtype

    @contextmanager
    def observe(self) -> Iterator[None]:
        """Count the examples of the forwards within; see `Penalty.observe`."""
        self.forget()
        with self._shares.observe():
            yield

    def observed(self) -> int:
        """Count the observed forwards that no call has used yet."""
        return self._shares.observed()

    def forget(self) -> None:
        """Let go of what was collected since the last step."""
        self._shares.forget()
        if self._mean is not None:
            self._mean.forget()

    def state_dict(self) -> dict[str, Tensor]:
        """The running means that dispersion is from."""
        return {} if self._mean is None else self._mean.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            ValueError: If it is of another penalty.
        """
        if self._mean is not None:
            self._mean.load_state_dict(state)
        elif state:
            raise ValueError(f"penalty {self._settings.penalty!r} has no state, got entries {sorted(state)}")

    def _draw(self, noisy: Tensor, share: Share, generator: torch.Generator | None) -> Float[Tensor, "k n *dims"]:
        """Signs for this call's examples: of the whole step's with a generator, so that however it is cut is one."""
        settings, dims = self._settings, noisy.shape[1:]
        if settings.penalty in ("hinge", "negative_eigenvalues"):
            count = settings.k
        else:
            count = 1 + (
                settings.penalty == "asymmetry" or (settings.penalty == "frobenius" and settings.of == "eigenvalues")
            )

        def sample(examples: int, **where: Any) -> Tensor:
            return torch.randint(2, (examples, count, *dims), dtype=torch.int8, **where)

        signs = share.draw(sample, generator, noisy.device)
        return (2 * signs - 1).to(torch.promote_types(noisy.dtype, torch.float32)).transpose(0, 1)

    def _operator(
        self, context: Mapping[str, Any], noisy: Tensor, sigma: Tensor, ratio: Tensor, every: slice
    ) -> StepOperator:
        settings, denoised = self._settings, context.get("denoised")
        x, at, rho = noisy[every].detach().contiguous(), sigma[every], ratio[every]
        frame = frame_factor(rho * at, settings.frame) / frame_factor(at, settings.frame)
        identity, slope = frame * rho, frame * (1 - rho)
        if settings.penalty == "negative_eigenvalues":  # of the denoiser's own Jacobian
            identity, slope = torch.zeros_like(rho), torch.ones_like(rho)
        # With the statistics of the batch, some of its examples are another batch, and the denoiser another function.
        if denoised is not None and any(module.training for module in self._batch_norms):
            denoised = None
        # A constant would leave the half of the difference without a gradient.
        if denoised is not None and torch.is_grad_enabled() and not denoised.requires_grad:
            denoised = None
        conditioning = chosen_examples(context.get("conditioning"), len(noisy), every)
        precision = self._precision(noisy)
        return StepOperator(
            Passes(context["denoiser"], at.to(context["sigma"].dtype), conditioning),
            x,
            identity,
            slope,
            step_size(x, at, precision, settings.step),
            "finite_difference" if settings.estimator == "auto" else settings.estimator,
            None if denoised is None else denoised[every].to(rho.dtype),
            # A mean gain averages rounding over an image's numbers; the others square it.
            two_sided=precision in HALF and settings.penalty != "dispersion",
            retain=self._retain,
        )

    def _measure(
        self, operator: StepOperator, directions: Tensor, sigma: Tensor
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """The penalty of each example, and the gain that it is about."""
        settings, d = self._settings, operator.x[0].numel()
        if settings.penalty in ("hinge", "negative_eigenvalues"):
            return self._extremes(operator, directions)
        v = directions[0]
        product = operator.product(v)
        mean_gain = dot(v, product) / d
        if settings.penalty == "dispersion":
            assert self._mean is not None
            gain = (
                mean_gain
                if settings.of == "eigenvalues"
                else torch.linalg.vector_norm(product.flatten(1), dim=1) / d**0.5
            )
            mean, known = self._mean.at(sigma)
            if torch.is_grad_enabled():  # an evaluation is no step
                self._mean.add(sigma, gain)
            return known.to(gain) * (gain - mean.to(gain)).square(), gain
        if settings.penalty == "frobenius" and settings.of == "singular_values":
            return dot(product, product) / d, mean_gain
        u = directions[1]
        one, other = dot(u, product), dot(v, operator.product(u))
        if settings.penalty == "frobenius":
            return (one + other).square() / (4 * d), mean_gain
        return (one - other).square() / d, mean_gain

    def _extremes(self, operator: StepOperator, start: Tensor) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        settings = self._settings
        negative = settings.penalty == "negative_eigenvalues"
        of: Any = "smallest" if negative else "largest" if settings.of == "eigenvalues" else "singular"
        left, right = ritz_vectors(operator, start, settings.iterations, of)
        gains = torch.stack([operator.form(u, v) for u, v in zip(left, right, strict=True)])
        if negative:
            return (-gains).relu().square().sum(0), gains[0]
        bound = operator.identity + operator.slope * settings.bound
        return (gains - bound).relu().square().sum(0), gains[0]

    def _precision(self, noisy: Tensor) -> str:
        """The precision of the model's work: of its first layer's answers, or what the input has."""
        dtype = min(self._seen["precision"] or noisy.dtype, noisy.dtype, key=lambda dtype: dtype.itemsize)
        return working_precision(dtype, noisy.device)

    def _say(self, operator: StepOperator) -> None:
        chosen = f"{operator.describe()}, {self._precision(operator.x)}"
        if chosen != self.chosen:
            _LOG.info("SpectralDecomposition(penalty=%r): %s", self._settings.penalty, chosen)
        self.chosen = chosen
