"""From the names of transformations to views of some data."""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import torch

from lsdr.representation.data.fields import ImageFields, TableFields, TextFields
from lsdr.representation.data.representation_data import RepresentationData, examples
from lsdr.representation.views.catalogue import DEFAULTS, STRENGTHS
from lsdr.representation.views.geometry import GEOMETRY, resampling
from lsdr.representation.views.images import change_pixels
from lsdr.representation.views.own import own_step
from lsdr.representation.views.parse import Part, kind_strength, parse
from lsdr.representation.views.step import Step
from lsdr.representation.views.tables import change_cells
from lsdr.representation.views.texts import change_tokens
from lsdr.representation.views.view import View

# Rows that a table's marginals are drawn from: a share of a column's cells is off by 0.4 % at most (standard error).
_REFERENCE = 16384


def open_views(spec: str | Sequence[str | Callable[..., Any]], data: RepresentationData) -> View:
    """The view that consists of some transformations.

    Args:
        spec: Names with strengths, functions of the user's, or "default": see `lsdr.representation.views.parse.parse`
            and, for functions, `lsdr.representation.views.own.own_step`.
        data: The data that it is for. Tables draw cells from training rows; functions are tried on two training
            examples.

    Raises:
        ValueError: If a transformation does not exist, or cannot do anything to this data.
        TypeError: If a function is none of inputs.

    Example:
        >>> from lsdr.representation.data.open import open_data
        >>> open_views("rotation:30,noise", open_data("digits")).transformations
        ('rotation:30', 'noise:0.05')
    """
    return _view(parse(spec, data.modality, _default(data)), data)


def single(name: str, strength: float, data: RepresentationData) -> View:
    """One transformation at exactly one strength, to measure how invariant codes are to it.

    What a view does by up to ± a strength is done by the whole strength here, either way with equal chance; what it
    does with some probability has that probability.

    Args:
        name: Of the transformation.
        strength: How strong.
        data: The data that it is for.

    Raises:
        ValueError: If there is no such transformation, it does nothing to inputs ("dropout"), or cannot do anything
            to this data.
    """
    part = Part(name, kind_strength(name, strength, data.modality))
    if name == "dropout":
        raise ValueError("dropout is the encoder's own while it trains: there is no view of an example to measure")
    return _view((part,), data, exact=True)


def sweep(data: RepresentationData) -> dict[str, tuple[float, ...]]:
    """Strengths to measure invariance at, of every transformation that can change these data.

    Args:
        data: Of any modality.

    Example:
        >>> from lsdr.representation.data.open import open_data
        >>> sweep(open_data("wine"))["marginal"]
        (0.1, 0.3, 0.6)
    """
    fields, without = data.fields, set[str]()
    if isinstance(fields, ImageFields) and fields.shape[0] == 1:
        without = {"colour", "grey"}
    if isinstance(fields, TableFields):
        without = ({"noise"} if not fields.numeric else set()) | (
            {"marginal"} if len(fields.numeric) + len(fields.categorical) < 2 else set()
        )
    return {name: levels for name, levels in STRENGTHS[data.modality].items() if name not in without}


def _default(data: RepresentationData) -> str:
    names, fields = DEFAULTS[data.modality], data.fields
    if isinstance(fields, ImageFields):
        channels = fields.shape[0]
        names += ",colour:0.2" if channels > 1 else ""
        names += ",grey:0.2" if channels == 3 else ""
    return names


def _view(parts: tuple[Part, ...], data: RepresentationData, exact: bool = False) -> View:
    steps: list[Step] = []
    for resampled, group in groupby(parts, key=lambda part: part.function is None and part.name in GEOMETRY):
        if resampled:
            steps.append(resampling([(part.name, _strength(part)) for part in group], exact))
        else:
            steps += [_step(part, data, exact) for part in group]
    return View(data.fields, parts, tuple(steps))


def _strength(part: Part) -> float:
    assert part.strength is not None  # only functions have none
    return part.strength


def _step(part: Part, data: RepresentationData, exact: bool) -> Step:
    fields = data.fields
    if part.function is not None:
        sample, _, _ = examples(data.train, fields, 2, torch.device("cpu"))
        return own_step(part.function, part.name, sample)
    strength = _strength(part)
    if isinstance(fields, ImageFields):
        channels = fields.shape[0]
        if part.name == "grey" and channels == 1:
            raise ValueError("grey makes channels equal, and these images have one channel; leave it out")
        return change_pixels(part.name, strength, channels, exact)
    if isinstance(fields, TextFields):
        return change_tokens(part.name, strength, fields)
    reference, _, _ = examples(data.train, fields, _REFERENCE, torch.device("cpu"))
    return change_cells(part.name, strength, reference, exact)
