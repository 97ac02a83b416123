"""A GAN as a task of the training loop: examples, two players that take turns, and what to watch meanwhile."""

import copy
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from lsdr.data.grid import image_grid
from lsdr.gan.config import GanConfig
from lsdr.gan.game import discriminator_losses, draws, generator_losses
from lsdr.gan.measures.mode_coverage import mode_coverage
from lsdr.gan.mixtures import Mixture
from lsdr.gan.players import Gan
from lsdr.gan.scatter import scatter
from lsdr.measures.precision_recall import precision_recall
from lsdr.training.order import stream_seed
from lsdr.training.turn import Turn

# What is watched uses the same latents every time, so that it compares over steps, methods and seeds.
_MEASURE_SEED = 20240601
_POINTS, _IMAGES = 1000, 256
# A share of samples has fallen where it lies so far below its best, and farther than so many standard errors of the
# difference of two shares.
_FALL, _ERRORS = 0.1, 4.0
# High-quality samples from which on modes are counted.
_SOME = 0.1
# What counts as realism: of points the samples of a mode, of images those near a real one.
_REALISM = {"high_quality": "the share of high-quality samples", "precision": "precision"}
_BRANCHES = re.compile(r"^generator\..*\.branch$")


@dataclass
class GanTask:
    """Train a generator and a discriminator against each other.

    A step is a turn of the discriminator and one of the generator, each with latents and noise of its own on the same
    real examples (see `lsdr.gan.game`).
    """

    model: nn.Module
    """The players, a `Gan`."""
    config: GanConfig
    dataset: Dataset[Any]
    """Examples to train on."""
    seen: Tensor
    """Some of them, in the data's units (pixels in [-1, 1]), on the device: what samples are compared with."""
    unseen: Tensor
    """Examples kept out of training, likewise."""
    names: Callable[[int], str]
    mixture: Mixture | None = None
    """The data's distribution, where it is known."""
    _best: dict[str, float] = field(default_factory=dict)
    _fallen: set[str] = field(default_factory=set)

    @property
    def gan(self) -> Gan:
        """The players."""
        return _gan(self.model)

    def turns(self) -> tuple[Turn, Turn]:
        """The discriminator's move, then the generator's."""
        return (
            Turn("discriminator", self.losses, lr_scale=self.config.discriminator_lr),
            Turn("generator", lambda model, batch: generator_losses(_gan(model), self.config, batch)),
        )

    def draws(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Latents, noise and noise levels of both turns, and who is mirrored."""
        return draws(self.gan, self.config, count, generator)

    def losses(self, model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Any]]:
        """The discriminator's losses: those of a step's first turn."""
        return discriminator_losses(_gan(model), self.config, batch)

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """What the averaged generator covers, noise off, and how the discriminator takes what it has not seen.

        The discriminator is the one that plays, not its average.
        """
        gan = _gan(model)
        count = _IMAGES if self.mixture is None else _POINTS
        generator = torch.Generator().manual_seed(stream_seed(_MEASURE_SEED, "evaluate"))
        samples = gan.sample(count, generator)
        found = self._quality(samples)
        playing = self._with_current_discriminator(gan)
        packs = gan.packing * max(1, count // gan.packing)
        outputs = {
            "train": playing.logits(self.seen[:packs]),
            "heldout": playing.logits(self.unseen[:packs]),
            "fake": playing.logits(samples),
        }
        means = {f"logits_{name}": float(logits.mean()) for name, logits in outputs.items()}
        found |= {**means, "heldout_gap": means["logits_train"] - means["logits_heldout"]}
        if gan.noise is not None:
            found["noise_strength"] = float(gan.noise.strength)
        return found

    def _quality(self, samples: Tensor) -> dict[str, float]:
        if self.mixture is not None:
            modes = mode_coverage(samples, self.mixture)
            return {
                "modes": float(modes.modes),
                "high_quality": modes.high_quality,
                "reverse_kl": math.nan if modes.reverse_kl is None else modes.reverse_kl,
                "reverse_kl_all": math.nan if modes.reverse_kl_all is None else modes.reverse_kl_all,
            }
        real = self.seen[:_IMAGES]
        near = precision_recall(samples.flatten(1), real.flatten(1), k=min(5, len(real) - 1))
        return {name: float(getattr(near, name)) for name in ("precision", "recall", "density", "coverage")}

    def _with_current_discriminator(self, averaged: Gan) -> Gan:
        """The averaged players with the discriminator as it plays now, free of what hangs on it while it trains."""
        discriminator = copy.deepcopy(averaged.discriminator)
        discriminator.load_state_dict(self.gan.discriminator.state_dict())
        return averaged.against(discriminator)

    def picture(self, model: nn.Module) -> Image.Image:
        """Samples from the same latents every time: points over the data's, or a grid of images."""
        generator = torch.Generator().manual_seed(stream_seed(_MEASURE_SEED, "picture"))
        if self.mixture is not None:
            return scatter(_gan(model).sample(_POINTS, generator), self.seen[:_POINTS])
        return image_grid(_gan(model).sample(32, generator))

    def feature_layers(self) -> re.Pattern[str] | None:
        """The residual branches of the generator, if it has any."""
        return _BRANCHES if any(_BRANCHES.search(name) for name, _ in self.model.named_modules()) else None

    def on_monitored(self, values: Mapping[str, float], step: int) -> list[dict[str, Any]]:
        """Say when samples become less realistic while there is noise, and when modes are lost.

        A share has fallen when it lies 0.1 below its best, and 4 standard errors of the difference of two shares of as
        many samples; modes have, when more than one in ten of the most that were captured is missing, counting
        from where a tenth of the samples is of high quality: of a few stray ones each may hit a mode by chance. Each is
        said once until it has come half the way back.
        """
        events = []
        noise = values.get("noise_strength", 0.0) > 0 or self.config.denoising
        for name, words in _REALISM.items():
            if name not in values:
                continue
            best, now = self._best_of(name, values[name]), values[name]
            count = _POINTS if name == "high_quality" else _IMAGES
            error = math.sqrt((best * (1 - best) + now * (1 - now)) / count)
            if self._falls(name, best - now, max(_FALL, _ERRORS * error)) and noise:
                message = f"{words}, with noise off, fell to {now:.2f} from {best:.2f} while there is noise in training"
                events.append({"kind": "realism", "message": message})
        if "modes" in values and (values["high_quality"] >= _SOME or "modes" in self._best):
            best, now = self._best_of("modes", values["modes"]), values["modes"]
            if self._falls("modes", best - now, max(1.0, best / 10)):
                message = f"{best - now:.0f} of {best:.0f} modes that were captured are lost"
                events.append({"kind": "mode_loss", "message": message})
        return events

    def _best_of(self, name: str, value: float) -> float:
        self._best[name] = max(self._best.get(name, value), value)
        return self._best[name]

    def _falls(self, name: str, distance: float, far: float) -> bool:
        """Whether something has just fallen far below its best."""
        if distance <= far / 2:
            self._fallen.discard(name)
        if distance < far or name in self._fallen:
            return False
        self._fallen.add(name)
        return True

    def name(self, index: int) -> str:
        """What a person calls the example with this index."""
        return self.names(index)


def _gan(model: nn.Module) -> Gan:
    assert isinstance(model, Gan)
    return model
