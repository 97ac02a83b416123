"""The attached side of `SpectralDiscriminator`."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lsdr.regularizers._look import Look, Pictures
from lsdr.regularizers._noise_aware import NoiseAware
from lsdr.regularizers._shares import Share, Shares
from lsdr.regularizers._spread import Spread
from lsdr.regularizers._step_images import StepImages, read_images
from lsdr.regularizers.layer_spectra import LayerSpectra
from lsdr.regularizers.spectral_features import Feature, RadialSpectrum

_NAME = "SpectralDiscriminator"


class DiscriminatorTerm:
    """The penalty of one attached `SpectralDiscriminator`."""

    def __init__(
        self,
        model: nn.Module,
        features: Mapping[str, Feature | LayerSpectra],
        noise: NoiseAware,
        tolerance: float | None,
        weight: float,
        learn: int,
    ):
        self.values: dict[str, Tensor] = {}
        self.shares = Shares()
        self._model, self._features, self._noise = model, dict(features), noise
        self._tolerance, self._weight = tolerance, weight
        self._layers = {name: each.select(model) for name, each in features.items() if isinstance(each, LayerSpectra)}
        self._spreads = (
            {}
            if tolerance is None
            else {
                name: Spread(each.components, learn, each.every if isinstance(each, LayerSpectra) else 1)
                for name, each in features.items()
            }
        )
        # What needs nothing known of the data needs no first images to know it from.
        floors = any(isinstance(each, RadialSpectrum) for each in features.values())
        self._learns = tolerance is not None or noise.mode != "none" or floors

    def __call__(self, **context: Any) -> Float[Tensor, ""]:
        """Give this call's share of the weighted penalty; needs `denoised`, `clean` and, unless ungated, `sigma`."""
        step = read_images(context, _NAME, needs_sigma=self._noise.mode != "none")
        share = self.shares.take(len(step.clean), step.clean.device)
        with torch.autocast(step.clean.device.type, enabled=False):
            return self._penalty(step, share, context)

    def observe(self) -> AbstractContextManager[None]:
        """Count the examples of the forwards within, of which the next calls are shares; see `Penalty.observe`."""
        self.forget()
        return self.shares.observe()

    def observed(self) -> int:
        """Count the observed forwards that no call has used yet."""
        return self.shares.observed()

    def forget(self) -> None:
        """Let go of an unfinished step."""
        self.shares.forget()
        for part in self._parts().values():
            part.forget()

    def state_dict(self) -> dict[str, Tensor]:
        """What was measured on the clean images; empty before the first step."""
        return {
            f"{name}/{key}": value for name, part in self._parts().items() for key, value in part.state_dict().items()
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            ValueError: If it is of other features.
        """
        parts = self._parts()
        foreign = {key for key in state if key.rpartition("/")[0] not in parts}
        if foreign:
            raise ValueError(f"the state has entries {sorted(foreign)}, but attached are {list(parts)}")
        for name, part in parts.items():
            part.load_state_dict(
                {key.rpartition("/")[2]: value for key, value in state.items() if key.rpartition("/")[0] == name}
            )

    def _parts(self) -> dict[str, NoiseAware | Spread]:
        """All that learns from clean images, by its name in the state."""
        return {"noise": self._noise, **{f"spread/{name}": spread for name, spread in self._spreads.items()}}

    def _penalty(self, step: StepImages, share: Share, context: Mapping[str, Any]) -> Float[Tensor, ""]:
        known = self._noise.ready or not self._learns
        ready = known and all(spread.ready for spread in self._spreads.values())
        learning = self._learns and torch.is_grad_enabled()
        pictures = Pictures(step.denoised, step.clean, step.clean, torch.ones_like(step.sigma))
        if ready and self._learns:
            gate = self._noise.gate(step.sigma)
            # Where nothing of the data is left in the noise, an estimate may be anything, not a number too.
            closed = (gate == 0).view(-1, *[1] * (step.clean.ndim - 1))
            denoised = torch.where(closed, step.clean, step.denoised)
            pictures = Pictures(denoised, step.clean, self._noise.target(step.clean, step.sigma), gate)
        parts: dict[str, tuple[Tensor, Tensor]] = {}
        for name, feature in self._features.items():
            spread = self._spreads.get(name)
            # What a spread is measured in takes the data's variance: it begins a step later.
            learns = spread is not None and learning and known and spread.learning
            if not ready and not learns:
                continue
            look = Look(feature, self._noise.mode, self._tolerance, spread, learns=learns, ready=ready)
            if isinstance(feature, LayerSpectra):
                with feature.running(self._model):
                    forward = feature.forward(step.clean, share, context)
                    see = partial(feature.coordinates, layers=self._layers[name], forward=forward)
                    found = look.apart(see, pictures.every(feature.every))
            else:
                see = partial(feature.coordinates, rings=self._noise.rings(step.clean) if self._learns else None)
                found = look(see, pictures)
            if found is not None:
                parts[name] = found
        if learning:
            self._noise.update(step.clean)
            self._noise.merge(share)
            for spread in self._spreads.values():
                spread.merge(share)
        zero = step.clean.new_zeros(())
        losses = {name: parts[name][0] if name in parts else zero for name in self._features}
        outside = [part[1] for part in parts.values()]
        self.values = {name: loss.detach() for name, loss in losses.items()}
        self.values["outside"] = torch.stack(outside).mean() if outside else zero
        if not ready:
            return zero
        total = self._weight * share.combine(torch.stack(list(losses.values())).mean())
        # A zero gradient adds nothing but can change the layout in which sums are taken, and so the last bit.
        return total if self._weight else total.detach()
