"""What each ordered direction of the codes is about: the examples at its two ends, and what it responds to."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lsdr.representation.data.fields import ImageFields
from lsdr.representation.inputs import rows
from lsdr.representation.measures.attribution import responds, saliency
from lsdr.representation.measures.material import Encode, Material
from lsdr.representation.measures.neighbours import about, pictures
from lsdr.representation.ordered_codes import OrderedCodes

_ATTRIBUTED = 256  # examples over which attributions are averaged


def direction_examples(
    encoder: Any, encode: Encode, material: Material, codes: Tensor, ordered: OrderedCodes, number: int, shown: int
) -> tuple[dict[str, Any], list[tuple[Tensor, Tensor]]]:
    r"""The training examples with the largest and the smallest scores of each direction.

    The share of a direction is that of the codes' variance which its scores s = w^T (z - mean) explain,
    :math:`|C w|^2 / (\mathrm{tr}\,C \; w^\top C w)`.

    Args:
        encoder: With `features(inputs)`.
        encode: Gives its codes.
        material: The examples.
        codes: Codes of the training examples, finite.
        ordered: Directions, best first.
        number: How many of them.
        shown: Examples at each end.

    Returns:
        What directions.json holds, and of each direction the places of its top and bottom examples.
    """
    scores, train = ordered(codes.double()), material.train
    centred = codes.double() - codes.double().mean(0)
    told, ends = [], []
    number = min(number, scores.shape[1])
    some = rows(train.inputs, slice(0, _ATTRIBUTED))
    words = responds(encoder, encode, ordered, some, material.data.fields, number)
    for direction in range(number):
        order = scores[:, direction].argsort(descending=True, stable=True)
        count = min(shown, len(order))
        top, bottom = order[:count], order.flip(0)[:count]
        score = scores[:, direction] - scores[:, direction].mean()
        explained = (centred.T @ score).square().sum() / (score.square().sum() * centred.square().sum())
        told.append(
            {
                "rank": direction + 1,
                "correlation": float(ordered.correlations[direction]),
                "share": float(explained),
                "top": [about(material.data, train, int(place)) for place in top],
                "bottom": [about(material.data, train, int(place)) for place in bottom],
                "responds": [list(each) for each in words[direction]],
            }
        )
        ends.append((top, bottom))
    return {"directions": told}, ends


def direction_rows(material: Material, ends: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """A row a direction: examples at its lower end, the lowest first, then those at its upper end, the highest last.

    Args:
        material: The examples, images.
        ends: Of each direction the places of its top and bottom examples.
    """
    images = material.train.inputs["image"].cpu()
    return pictures(torch.cat([images[torch.cat([bottom, top.flip(0)])] for top, bottom in ends]))


def attribution_rows(
    encoder: Any, material: Material, ordered: OrderedCodes, ends: Sequence[tuple[Tensor, Tensor]]
) -> Tensor:
    """The same rows with the absolute gradient of the direction's score in place of each image, the largest white.

    Args:
        encoder: With `features(inputs)`.
        material: The examples, images.
        ordered: Directions.
        ends: Of each direction the places of its top and bottom examples.
    """
    assert isinstance(material.data.fields, ImageFields)
    maps = []
    for direction, (top, bottom) in enumerate(ends):
        places = torch.cat([bottom, top.flip(0)])
        device = material.train.inputs["image"].device
        shown = rows(material.train.inputs, places.to(device))
        gradient = saliency(encoder, ordered, shown, [direction])[0].abs().sum(1)
        maps.append(gradient / gradient.amax((1, 2), keepdim=True).clamp_min(1e-30))
    return pictures(torch.cat(maps)[:, None])
