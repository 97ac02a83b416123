"""The attached side of `LearnedSpectralDiscriminator`: a critic, its optimizer, and what the denoiser hears of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, distributed
from torch.func import functional_call

from lsdr.regularizers._noise_aware import NoiseAware
from lsdr.regularizers._running_sums import ENOUGH, RunningSums
from lsdr.regularizers._shares import Share, Shares
from lsdr.regularizers._step_images import read_images
from lsdr.regularizers.spectral_critic import SpectralCritic, spectral_profile

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
# Momentum as usual where two networks learn against each other; Radford et al., arXiv 1511.06434.
_BETAS = (0.5, 0.999)


class CriticTerm:
    """The penalty of one attached `LearnedSpectralDiscriminator`."""

    def __init__(
        self, weight: float, lr: float, hidden: int, noise: Literal["wiener", "snr", "none"], seed: int, learn: int
    ):
        self.values: dict[str, Tensor] = {}
        self.shares = Shares()
        self._weight, self._lr, self._hidden, self._seed = weight, lr, hidden, seed
        self._noise = NoiseAware(noise, learn)
        self._profiles = RunningSums(learn)
        self._critic: SpectralCritic | None = None
        self._optimizer: torch.optim.Adam | None = None
        self._pending: Tensor | None = None

    def __call__(self, **context: Any) -> Float[Tensor, ""]:
        """Give the weighted penalty, this call's share of it, and let the critic learn after the step's last chunk.

        Raises:
            TypeError: If the context lacks something.
            ValueError: If the clean images or noise levels cannot be right.
        """
        step = read_images(context, "LearnedSpectralDiscriminator")
        clean, sigma = step.clean, step.sigma
        share = self.shares.take(len(clean), clean.device)
        critic = self._critic
        if critic is None or self._optimizer is None:
            self.values = {"estimate": clean.new_zeros(()), "critic": clean.new_zeros(())}
            total = clean.new_zeros(())
        else:
            gate, target = self._noise.gate(sigma), self._noise.target(clean, sigma)
            counts = gate > 0
            # Before any arithmetic: an estimate from noise alone may be anything, also in its gradient.
            aligned = counts.reshape(-1, *[1] * (clean.ndim - 1))
            estimate = torch.where(aligned, step.denoised, target)
            # Copies, since the critic moves before the caller's backward pass.
            fixed = {name: tensor.detach().clone() for name, tensor in _tensors(critic).items()}
            logits = functional_call(critic, fixed, (estimate, sigma))
            penalty = (gate * F.softplus(-logits)).mean()
            self.values = {"estimate": penalty.detach()}
            self.values["critic"] = self._judge(critic, estimate.detach(), target, sigma, gate)
            total = self._weight * share.combine(penalty)
        if torch.is_grad_enabled():
            self._measure(clean)
            if share.last:
                self._learn(share, clean)
        return total if self._weight else total.detach()

    @contextmanager
    def observe(self) -> Iterator[None]:
        """Count the examples of the forwards within, of which the next calls take a share each."""
        self.forget()
        with self.shares.observe():
            yield

    def observed(self) -> int:
        """Count the observed forwards that no call has used yet."""
        return self.shares.observed()

    def forget(self) -> None:
        """Let go of what the chunks of a step that did not end brought."""
        self.shares.forget()
        self._noise.forget()
        self._profiles.forget()
        self._pending = None

    def state_dict(self) -> dict[str, Tensor]:
        """The data's statistics, the critic and its optimizer's moments; empty before the first step."""
        state = {f"noise/{key}": value for key, value in self._noise.state_dict().items()}
        state |= {f"profiles/{key}": value for key, value in self._profiles.state_dict().items()}
        if self._critic is not None and self._optimizer is not None:
            state["shape"] = torch.tensor(self._critic.shape)
            state |= {f"critic/{key}": value.detach() for key, value in _tensors(self._critic).items()}
            for name, parameter in self._critic.named_parameters():
                moments = self._optimizer.state[parameter]
                state |= {f"adam/{key}/{name}": moments[key] for key in _MOMENTS if moments}
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            ValueError: If it is of another regularizer, or of a critic of another width.
        """
        kinds = {"noise", "profiles", "shape", "critic", "adam"}
        foreign = {key for key in state if key.split("/", 1)[0] not in kinds}
        if foreign:
            raise ValueError(f"the state is of another regularizer: entries {sorted(foreign)} do not fit")
        self.forget()
        self._noise.load_state_dict(_part(state, "noise"))
        self._profiles.load_state_dict(_part(state, "profiles"))
        self._critic = self._optimizer = None
        if "shape" not in state:
            return
        tensors = _part(state, "critic")
        first = tensors["network.0.bias"]
        width = first.numel()
        if width != self._hidden:
            raise ValueError(f"the state is of a critic with hidden={width}, and this one has hidden={self._hidden}")
        critic, optimizer = self._build(tuple(state["shape"].tolist()), first)
        critic.load_state_dict(tensors)
        for name, parameter in critic.named_parameters():
            moments = {key: state[f"adam/{key}/{name}"].clone() for key in _MOMENTS if f"adam/{key}/{name}" in state}
            if moments:
                optimizer.state[parameter] = moments
        self._critic, self._optimizer = critic, optimizer

    def _build(self, shape: tuple[int, ...], like: Tensor) -> tuple[SpectralCritic, torch.optim.Adam]:
        generator = torch.Generator().manual_seed(self._seed)
        critic = SpectralCritic(shape[0], shape[1:], self._hidden, generator=generator).to(like)
        return critic, torch.optim.Adam(critic.parameters(), lr=self._lr, betas=_BETAS)

    def _judge(self, critic: SpectralCritic, estimate: Tensor, target: Tensor, sigma: Tensor, gate: Tensor) -> Tensor:
        """The critic's own loss, mean over examples; where gradients are enabled, what it learns from it waits."""
        with torch.no_grad():
            profiles = [critic.profile(images) for images in (target, estimate)]
            finite: Bool[Tensor, " b"] = torch.stack([each.isfinite().all(1) for each in profiles]).all(0)
            profiles = [torch.where(finite[:, None], each, 0) for each in profiles]
        real, generated = (critic.judge(each, sigma) for each in profiles)
        losses = torch.where(finite, gate, 0) * (F.softplus(-real) + F.softplus(generated))
        if torch.is_grad_enabled():
            gradients = torch.autograd.grad(losses.sum(), list(critic.parameters()))
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            self._pending = flat if self._pending is None else self._pending + flat
        return losses.detach().mean()

    def _measure(self, clean: Tensor) -> None:
        """Take the clean images' statistics: of their power first, and once it is known of their profiles."""
        if self._noise.ready and self._profiles.learning:
            profile = spectral_profile(clean, self._noise.variance().to(clean))
            self._profiles.add({"profile": profile, "square": profile.square()})
        self._noise.update(clean)

    def _learn(self, share: Share, clean: Tensor) -> None:
        """The end of a step: the critic's update, and the statistics that count from the next one on."""
        if self._pending is not None and self._critic is not None and self._optimizer is not None:
            if share.world > 1:
                distributed.all_reduce(self._pending)
            parameters = list(self._critic.parameters())
            parts = (self._pending / share.total).split([parameter.numel() for parameter in parameters])
            for parameter, part in zip(parameters, parts, strict=True):
                parameter.grad = part.view_as(parameter)
            self._optimizer.step()
            self._optimizer.zero_grad()
        self._pending = None
        self._noise.merge(share)
        if self._profiles.settle(share) and self._profiles.seen >= ENOUGH:
            if self._critic is None:
                self._critic, self._optimizer = self._build(tuple(clean.shape[1:]), clean)
            mean = self._profiles.mean("profile")
            variance = self._profiles.unbiased(self._profiles.mean("square"), mean.square())
            self._critic.standardize_(mean, variance.sqrt(), self._noise.variance())


def _tensors(critic: SpectralCritic) -> dict[str, Tensor]:
    return dict(critic.named_parameters()) | dict(critic.named_buffers())


def _part(state: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    return {key.split("/", 1)[1]: value for key, value in state.items() if key.startswith(f"{kind}/")}
