"""Representation learning as a task of the training loop: pairs of views, what to record and what to call out."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from lsdr.layers.select import Layers
from lsdr.probes.evaluating import evaluating
from lsdr.representation.codes import encode
from lsdr.representation.config import RepresentationConfig
from lsdr.representation.data.representation_data import prepare
from lsdr.representation.encoder import Encoder
from lsdr.representation.inputs import Inputs, concatenate, count
from lsdr.representation.measures.knn_probe import knn_probe
from lsdr.representation.measures.spectrum import spectral_measures
from lsdr.representation.measures.two_views import icc_of_codes
from lsdr.representation.measures.watch import OverfittingWatch
from lsdr.representation.objectives.sim_clr import sim_clr
from lsdr.representation.views.view import View
from lsdr.training.order import stream_seed

# What is watched sees the same views every time, so that it compares over steps, methods and seeds.
_MEASURE_SEED = 20240601
_VIEWS = ("first/", "second/")
# Codes are called constant below this share of variance in their mean square, and flat where they vary in fewer
# directions than this (participation ratio).
_CONSTANT, _FLAT = 1e-4, 1.05


@dataclass
class RepresentationTask:
    """Train an encoder on pairs of views.

    A step makes two views of each of its b examples and runs the encoder once on all 2b, the first half first views,
    the second half second ones. What makes views agree and examples differ is a regularizer on the projector; the
    task's own losses are zeros, but for SimCLR, which compares examples one by one and is no function of moments.
    """

    model: nn.Module
    """The encoder, an `Encoder`."""
    config: RepresentationConfig
    dataset: Dataset[Any]
    """Examples to train on."""
    view: View
    seen: Inputs
    """Some training examples, on the device."""
    unseen: Inputs
    """As many that are kept out of training."""
    names: Callable[[int], str]
    objective: Callable[[Tensor, Tensor], float]
    """Its value on the projector's outputs of two views, of the examples of this process alone."""
    seen_labels: Tensor | None = None
    unseen_labels: Tensor | None = None
    _watch: OverfittingWatch = field(default_factory=OverfittingWatch)
    _collapsed: bool = False

    @property
    def encoder(self) -> Encoder:
        """The model."""
        return _encoder(self.model)

    def draws(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """What decides both views of each example."""
        return {
            f"{prefix}{name}": drawn for prefix in _VIEWS for name, drawn in self.view.draws(count, generator).items()
        }

    def losses(self, model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Any]]:
        """Zeros, or SimCLR's loss of each example; the context's record tells of the projector's outputs."""
        raw = {name: value for name, value in batch.items() if not name.startswith(_VIEWS)}
        inputs = prepare(raw, self.encoder.fields)
        seen = [self.view(inputs, _own(batch, prefix)) for prefix in _VIEWS]
        z: Tensor = model(concatenate(seen))
        z = z.float() if z.dtype in (torch.float16, torch.bfloat16) else z
        a, b = z.chunk(2)
        with torch.autocast(z.device.type, enabled=False):
            losses = self.config.weight * sim_clr(a, b) if self.config.objective == "sim_clr" else (a * 0).sum(1)
            record = _spread(a.detach(), b.detach())
        return losses, {"record": record}

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """How the averaged encoder does on training and on held-out examples, under the same views every time."""
        encoder = _encoder(model)
        found: dict[str, float] = {}
        for part, inputs in (("train", self.seen), ("heldout", self.unseen)):
            codes, projected = self._pairs(encoder, inputs)
            found[f"{part}_objective"] = self.objective(*projected)
            found[f"{part}_invariance"] = icc_of_codes(*codes)
        found["invariance"] = found.pop("heldout_invariance")
        found["overfitting_gap"] = found.pop("train_invariance") - found["invariance"]
        known, unknown = (encode(encoder, inputs) for inputs in (self.seen, self.unseen))
        spectrum = spectral_measures(unknown)
        for name in ("rank_me", "effective_rank", "participation_ratio", "dead_dimensions", "variation"):
            found[name] = spectrum[name]
        found["code_std"] = float(unknown.double().var(0, correction=0).mean().sqrt())
        if self.seen_labels is not None and self.unseen_labels is not None and spectrum["finite"] == 1:
            found |= self._knn(known, unknown)
        return found

    def two_views(self, inputs: Inputs) -> tuple[Inputs, Inputs]:
        """Two views of some examples, the same ones every time."""
        draws = self.draws(count(inputs), torch.Generator().manual_seed(stream_seed(_MEASURE_SEED, "views")))
        first, second = (self.view(inputs, _own(draws, prefix)) for prefix in _VIEWS)
        return first, second

    def _pairs(self, encoder: Encoder, inputs: Inputs) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Codes of two views of some examples, and what the projector makes of them: the same views every time."""
        device = next(encoder.parameters()).device
        first, second = (encode(encoder, view) for view in self.two_views(inputs))
        with evaluating(encoder):
            one, two = (encoder.projector(codes.to(device)) for codes in (first, second))
        return (first, second), (one, two)

    def _knn(self, known: Tensor, unknown: Tensor) -> dict[str, float]:
        """Accuracy of a vote of the nearest training examples."""
        assert self.seen_labels is not None
        assert self.unseen_labels is not None
        labels, right = self.seen_labels.cpu(), self.unseen_labels.cpu()
        known, labels, unknown, right = known[labels >= 0], labels[labels >= 0], unknown[right >= 0], right[right >= 0]
        if not (len(labels) and len(right)):
            return {}
        return {"knn": float((knn_probe(known, labels, unknown) == right).double().mean())}

    def picture(self, model: nn.Module) -> None:
        """Nothing: an encoder makes no pictures."""

    def feature_layers(self) -> Layers:
        """The backbone's blocks and the codes."""
        return self.encoder.blocks()

    def on_monitored(self, values: Mapping[str, float], step: int) -> list[dict[str, Any]]:
        """Say when the codes have collapsed, and when what is learned no longer holds on held-out examples."""
        events = list(self._watch(values, step))
        if "variation" in values:
            message = _collapse(values)
            if message and not self._collapsed:
                events.append({"kind": "collapse", "message": message})
            self._collapsed = bool(message)
        return events

    def name(self, index: int) -> str:
        """What a person calls the example with this index."""
        return self.names(index)


def _own(draws: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): drawn for name, drawn in draws.items() if name.startswith(prefix)}


def _spread(a: Tensor, b: Tensor) -> dict[str, Tensor]:
    r"""How far the projector's outputs have collapsed.

    invariance is tr C_ab / tr C, std the root of the mean variance, participation_ratio (tr C)^2 / |C|_F^2.
    """
    a, b = a - a.mean(0), b - b.mean(0)
    both = torch.cat([a, b])
    variance = both.square().sum()
    # |C|_F from whichever of covariance and Gram matrix is smaller.
    wide = both.shape[1] > both.shape[0]
    square = (both @ both.T if wide else both.T @ both).square().sum()
    tiny = torch.finfo(variance.dtype).tiny
    return {
        "invariance": 2 * (a * b).sum() / variance.clamp_min(tiny),
        "z_std": (variance / both.numel()).sqrt(),
        "z_participation_ratio": variance.square() / square.clamp_min(tiny),
    }


def _collapse(values: Mapping[str, float]) -> str:
    """What is wrong with the spread of the codes, in words; empty where nothing is."""
    variation, ratio = values["variation"], values["participation_ratio"]
    if not math.isfinite(variation):
        return "the codes are not finite"
    if variation < _CONSTANT:
        return (
            f"the codes have collapsed: they are constant but for {variation:.1e} of their mean square; give the "
            "objective more weight on variance, or lower the learning rate"
        )
    if ratio < _FLAT:
        return (
            f"the codes have collapsed: they vary in {ratio:.2f} directions; give the objective more weight on "
            "variance and covariance, or lower the learning rate"
        )
    return ""


def _encoder(model: nn.Module) -> Encoder:
    assert isinstance(model, Encoder)
    return model
