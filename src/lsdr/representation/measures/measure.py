"""All measures of an encoder beside what it has to beat, on the same examples and views, and what is drawn of them."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lsdr.moments import Moments
from lsdr.probes.evaluating import evaluating
from lsdr.representation.codes import encode
from lsdr.representation.data.fields import ImageFields
from lsdr.representation.data.representation_data import RepresentationData
from lsdr.representation.inputs import Inputs, count, rows
from lsdr.representation.measures.config import RepresentationMeasureConfig
from lsdr.representation.measures.directions import attribution_rows, direction_examples, direction_rows
from lsdr.representation.measures.findings import judge
from lsdr.representation.measures.layers import layer_spectra
from lsdr.representation.measures.linear_probe import LinearProbe
from lsdr.representation.measures.material import Part, gather
from lsdr.representation.measures.neighbours import nearest_neighbours, neighbour_rows
from lsdr.representation.measures.probes import accuracy_by_length, measure_probes
from lsdr.representation.measures.references import principal_components, raw_inputs
from lsdr.representation.measures.retrieval import view_retrieval
from lsdr.representation.measures.session import Session
from lsdr.representation.measures.spectrum import spectral_measures, view_measures
from lsdr.representation.measures.sweep import corruption_curves, invariance_spectrum
from lsdr.representation.ordered_codes import OrderedCodes
from lsdr.representation.views.catalogue import TRANSFORMATIONS
from lsdr.representation.views.open import single, sweep
from lsdr.representation.views.view import View

_OF_CODES = ("rank_me", "effective_rank", "participation_ratio", "alpha_req", "dead_dimensions")
_LEAST = 2


def measure_all(
    encoder: Any,
    data: RepresentationData,
    view: View,
    config: RepresentationMeasureConfig,
    device: torch.device,
    directory: Path,
    *,
    untrained: Any | None = None,
    objective: Callable[[Tensor, Tensor], float] | None = None,
) -> dict[str, float]:
    """Measure an encoder and write what is told of it.

    The same examples, views, corruptions and labels are used every time, and for the references as for the encoder:
    differences are theirs. Nothing of the encoder is changed, and nothing is drawn from the global generator.
    What cannot be measured has no name in the result; findings.json says why.

    Args:
        encoder: With its weights as they are to be used.
        data: What it learned from, and what was kept aside.
        view: What it learned to be invariant to.
        config: How much to measure.
        device: Where the encoder is.
        directory: Where invariance.json, spectra.json, corruption.json, probes.json, neighbours.json, directions.json,
            findings.json and pictures are written.
        untrained: The encoder with its initial weights, measured beside.
        objective: Value of the training's objective for what the projector puts out of two views (n, d) of the same
            examples.

    Returns:
        Measures by the names of `catalogue.MEASURES` and their variants.

    Raises:
        ValueError: If there are not two training examples.
    """
    material = gather(data, config, device)
    if len(material.train) < _LEAST:
        raise ValueError(f"measuring needs two training examples at least, got {len(material.train)}")
    own = partial(encode, encoder, batch_size=config.batch, device=device)
    session = Session(encoder, view, config, directory, material, {"codes": own})
    train = material.train.inputs
    if config.references:
        raw = raw_inputs(train, data.fields)
        session.encoders["raw"] = raw
        components = principal_components(raw, raw(train), own(rows(train, slice(0, 1))).shape[1])
        if components is not None:
            session.encoders["pca"] = components
        if untrained is not None:
            session.encoders["random"] = partial(encode, untrained, batch_size=config.batch, device=device)
    ordered = _spectra(session)
    if len(material.heldout) >= _LEAST and session.about["finite"] == 1:
        probes = _labels(session, ordered)
        _transformations(session, ordered, probes)
        _corruptions(session, probes)
        _neighbours(session)
    if ordered is not None:
        _directions(session, ordered)
    if objective is not None and session.about["finite"] == 1:
        _objective(session, objective)
    told = judge(session.flat(), session.about)
    collapsed = any(each["kind"] in ("collapsed", "not_finite") for each in told["findings"])
    session.add({"codes": {"collapsed": float(collapsed)}})
    session.write("findings", told)
    return session.flat()


def _spectra(session: Session) -> OrderedCodes | None:
    """Ranks, LiDAR and invariance of all kinds, and the spectrum of every block; the directions of the codes.

    Ranks are those of training examples, of which there are more; invariance is that of held-out ones.
    """
    train, heldout = session.material.train, session.material.heldout
    seen, unseen = session.views(train), session.views(heldout) if len(heldout) else None
    told, ordered, canonical = list[dict[str, Any]](), None, list[float]()
    for kind, each in session.encoders.items():
        codes = session.train[kind] = each(train.inputs)
        session.heldout[kind] = each(heldout.inputs) if len(heldout) else codes[:0]
        found, pair = spectral_measures(codes), (each(seen[0]), each(seen[1]))
        values = {name: found[name] for name in _OF_CODES} | {"lidar": view_measures(*pair)["lidar"]}
        own = view_measures(*pair)["invariance"]
        if unseen is not None:
            other = each(unseen[0]), each(unseen[1])
            values["invariance"] = view_measures(*other)["invariance"]
            values["overfitting_gap"] = own - values["invariance"]
            values["view_retrieval"] = view_retrieval(*other) if math.isfinite(values["invariance"]) else math.nan
        session.add({kind: values})
        told.append({"name": kind if kind == "codes" else f"codes@{kind}", **found, **values})
        if kind == "codes":
            both = torch.cat([codes, session.heldout[kind], *pair])
            session.about = {
                "width": codes.shape[1],
                "train": len(train),
                "heldout": len(heldout),
                "finite": float(both.isfinite().all(1).double().mean()),
                "variation": found["variation"],
                "chance": None,
            }
            if math.isfinite(found["effective_rank"]) and math.isfinite(own):
                ordered = _ordered(*pair)
                canonical = [] if ordered is None else ordered.correlations.tolist()
    if session.config.layers:
        few = slice(0, session.config.view_examples)
        layers = layer_spectra(session.encoder, rows(seen[0], few), rows(seen[1], few), session.config.batch)
        told = [*layers, *told]
    session.write("spectra", {"layers": told, "canonical": canonical})
    return ordered


def _ordered(a: Tensor, b: Tensor) -> OrderedCodes | None:
    """The directions of codes by what two views share; None of codes that vary by rounding."""
    try:
        return OrderedCodes.of(Moments.of(a.double(), b.double()))
    except ValueError:
        return None


def _labels(session: Session, ordered: OrderedCodes | None) -> dict[str, LinearProbe]:
    """Probes, where there are labels of two classes."""
    material = session.material
    train, heldout = material.train.labels, material.heldout.labels
    if train is None or heldout is None:
        return {}
    if not material.labelled:
        session.about["labels"] = "the examples are not of two classes, or none that was held out is of one of them"
        return {}
    known, tested = train >= 0, heldout >= 0
    codes = {kind: session.train[kind][known] for kind in session.finite}
    others = {kind: session.heldout[kind][tested] for kind in session.finite}
    measures, told, probes = measure_probes(codes, train[known], others, heldout[tested], session.config)
    session.add(measures)
    session.about["chance"] = told["chance"]
    own = codes["codes"], others["codes"]
    lengths = [{"unordered": part} for part in own]
    for part, pair in zip(lengths, (codes, others), strict=True):
        if ordered is not None:
            part["ordered"] = ordered(pair["codes"])
        if "pca" in pair:
            part["pca"] = pair["pca"]
    told["length"] = accuracy_by_length(lengths[0], train[known], lengths[1], heldout[tested])
    session.write("probes", told)
    return probes


def _transformations(session: Session, ordered: OrderedCodes | None, probes: dict[str, LinearProbe]) -> None:
    """How invariant all kinds are to every transformation that there is, trained for or not."""
    material = session.material
    if not session.config.transformations:
        return
    data = material.data

    def transform(name: str, strength: float) -> Callable[[Inputs, int], Inputs]:
        one = single(name, strength, data)

        def apply(inputs: Inputs, seed: int) -> Inputs:
            moved: Inputs = one(inputs, one.draws(count(inputs), torch.Generator().manual_seed(seed)))
            return moved

        return apply

    strengths = sweep(data)
    part = _tested(material.heldout) if probes else material.heldout
    part = part.first(session.config.view_examples)
    if len(part) < _LEAST:
        return
    measures, told = invariance_spectrum(part, session.finite, transform, strengths, ordered, probes)
    for name, about in told["transformations"].items():
        about["unit"] = TRANSFORMATIONS[data.modality][name].unit
        about["trained"] = name in session.view.names
        about["trained_strength"] = session.view.strengths.get(name)
    session.add(measures)
    session.write("invariance", {**told, "examples": len(part)})


def _corruptions(session: Session, probes: dict[str, LinearProbe]) -> None:
    """Accuracy on corrupted images."""
    material = session.material
    if not (session.config.corruptions and probes and isinstance(material.data.fields, ImageFields)):
        return
    part = _tested(material.heldout).first(session.config.view_examples)
    measures, told = corruption_curves(part, session.finite, probes)
    session.add(measures)
    session.write("corruption", told)


def _neighbours(session: Session) -> None:
    """What the codes take for alike."""
    material, shown = session.material, session.config.shown
    told, places = nearest_neighbours(
        material.data, material.train, session.train["codes"], material.heldout, session.heldout["codes"], shown
    )
    session.write("neighbours", told)
    if isinstance(material.data.fields, ImageFields):
        session.draw("neighbours", neighbour_rows(material.heldout, material.train, places), places.shape[1] + 1)


def _directions(session: Session, ordered: OrderedCodes) -> None:
    """What the directions of the codes are about."""
    material, config = session.material, session.config
    told, ends = direction_examples(
        session.encoder,
        session.encoders["codes"],
        material,
        session.train["codes"],
        ordered,
        config.directions,
        config.shown,
    )
    session.write("directions", told)
    if isinstance(material.data.fields, ImageFields):
        columns = 2 * len(ends[0][0])
        session.draw("directions", direction_rows(material, ends), columns)
        session.draw("attribution", attribution_rows(session.encoder, material, ordered, ends), columns)


def _objective(session: Session, objective: Callable[[Tensor, Tensor], float]) -> None:
    """The objective on as many training as held-out examples: it depends on their number."""
    number = min(len(session.material.train), len(session.material.heldout))
    if number < _LEAST:
        return
    for name, part in (("train", session.material.train), ("heldout", session.material.heldout)):
        seen = session.views(part.first(number))
        session.add({"codes": {f"{name}_objective": objective(*(_projected(session, each) for each in seen))}})


@torch.no_grad()
def _projected(session: Session, inputs: Inputs) -> Tensor:
    """What the projector puts out."""
    batch = session.config.batch
    with evaluating(session.encoder):
        parts = [session.encoder(rows(inputs, slice(at, at + batch))) for at in range(0, count(inputs), batch)]
    return torch.cat(parts)


def _tested(part: Part) -> Part:
    """The labelled ones."""
    assert part.labels is not None
    known = (part.labels >= 0).nonzero().flatten()
    device = next(iter(part.inputs.values())).device
    return Part(rows(part.inputs, known.to(device)), part.labels[known], part.index[known])
