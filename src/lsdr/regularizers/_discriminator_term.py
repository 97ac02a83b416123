"""The attached side of `SpectralDiscriminator`."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lsdr.regularizers._look import Look, Pictures
from lsdr.regularizers._noise_aware import Noise
from lsdr.regularizers._shares import Share, Shares
from lsdr.regularizers._size_statistics import SizeStatistics
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
        noise: Noise,
        tolerance: float | None,
        weight: float,
        learn: int,
    ):
        self.values: dict[str, Tensor] = {}
        self.shares = Shares()
        self._model, self._features, self._noise = model, dict(features), noise
        self._tolerance, self._weight, self._learn = tolerance, weight, learn
        self._layers = {name: each.select(model) for name, each in features.items() if isinstance(each, LayerSpectra)}
        self._sizes: dict[str, SizeStatistics] = {}
        # What needs nothing known of the data needs no first images to know it from.
        floors = any(isinstance(each, RadialSpectrum) for each in features.values())
        self._learns = tolerance is not None or noise != "none" or floors

    def __call__(self, **context: Any) -> Float[Tensor, ""]:
        """Give this call's share of the weighted penalty; needs `denoised`, `clean` and, unless ungated, `sigma`."""
        step = read_images(context, _NAME, needs_sigma=self._noise != "none")
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
        for known in self._sizes.values():
            known.forget()

    def state_dict(self) -> dict[str, Tensor]:
        """What was measured on the clean images, keyed "<size>/<part>/<sum>"; empty before the first step."""
        return {
            f"{size}/{key}": value for size, known in self._sizes.items() for key, value in known.state_dict().items()
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            ValueError: If it is of other features.
        """
        parts: dict[str, dict[str, Tensor]] = {}
        for key, value in state.items():
            size, _, rest = key.partition("/")
            parts.setdefault(size, {})[rest] = value
        sizes = {size: self._statistics() for size in parts}
        for size, part in parts.items():
            sizes[size].load_state_dict(part)
        self._sizes = sizes

    def _statistics(self) -> SizeStatistics:
        return SizeStatistics(self._features, self._noise, self._tolerance, self._learn)

    def _penalty(self, step: StepImages, share: Share, context: Mapping[str, Any]) -> Float[Tensor, ""]:
        size = "x".join(map(str, step.clean.shape[1:]))
        if size not in self._sizes:
            self._sizes[size] = self._statistics()
        data = self._sizes[size]
        known = data.noise.ready or not self._learns
        ready = known and all(spread.ready for spread in data.spreads.values())
        learning = self._learns and torch.is_grad_enabled()
        pictures = Pictures(step.denoised, step.clean, step.clean, torch.ones_like(step.sigma))
        if ready and self._learns:
            gate = data.noise.gate(step.sigma)
            # Where nothing of the data is left in the noise, an estimate may be anything, not a number too.
            closed = (gate == 0).view(-1, *[1] * (step.clean.ndim - 1))
            denoised = torch.where(closed, step.clean, step.denoised)
            pictures = Pictures(denoised, step.clean, data.noise.target(step.clean, step.sigma), gate)
        parts: dict[str, tuple[Tensor, Tensor]] = {}
        for name, feature in self._features.items():
            spread = data.spreads.get(name)
            # What a spread is measured in takes the data's spectrum: it begins a step later.
            learns = spread is not None and learning and known and spread.learning
            if not ready and not learns:
                continue
            look = Look(feature, self._noise, self._tolerance, spread, learns=learns, ready=ready)
            if isinstance(feature, LayerSpectra):
                with feature.running(self._model):
                    forward = feature.forward(step.clean, share, context)
                    see = partial(feature.coordinates, layers=self._layers[name], forward=forward)
                    found = look.apart(see, pictures.every(feature.every))
            else:
                see = partial(feature.coordinates, rings=data.noise.rings(step.clean) if self._learns else None)
                found = look(see, pictures)
            if found is not None:
                parts[name] = found
        if learning:
            data.noise.update(step.clean)
            data.merge(share)
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
