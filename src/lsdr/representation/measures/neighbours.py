"""What the encoder takes for alike: held-out examples with the training examples nearest to them."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lsdr.measures.nearest import nearest
from lsdr.representation.data.representation_data import RepresentationData
from lsdr.representation.measures.material import Part

_TEXT = 200


def nearest_neighbours(
    data: RepresentationData, train: Part, codes: Tensor, heldout: Part, queries: Tensor, shown: int
) -> tuple[dict[str, Any], Tensor]:
    """The training examples nearest, by cosine, to some held-out ones, and how often the nearest is of the same class.

    Args:
        data: Names and texts of examples.
        train: Training examples.
        codes: Their codes, finite.
        heldout: Held-out examples.
        queries: Their codes, finite.
        shown: How many queries, and neighbours of each.

    Returns:
        What neighbours.json holds, and the places (queries, neighbours) of the neighbours among the training examples.
    """
    k = min(shown, len(train))
    distance, index = nearest(F.normalize(queries.double()), F.normalize(codes.double()), k)
    told = [
        {
            **about(data, heldout, query),
            "neighbours": [
                {**about(data, train, int(place)), "similarity": 1 - float(gap) ** 2 / 2}
                for place, gap in zip(index[query], distance[query], strict=True)
            ],
        }
        for query in range(min(shown, len(heldout)))
    ]
    found: dict[str, Any] = {"queries": told}
    if train.labels is not None and heldout.labels is not None:
        known = (heldout.labels >= 0) & (train.labels[index[:, 0]] >= 0)
        if bool(known.any()):
            wanted = heldout.labels[known]
            found["agreement"] = float((train.labels[index[known, 0]] == wanted).double().mean())
            shares = train.labels[train.labels >= 0].bincount(minlength=int(wanted.max()) + 1).double()
            found["chance"] = float((shares / shares.sum())[wanted].mean())
    return found, index[:shown]


def about(data: RepresentationData, part: Part, place: int) -> dict[str, Any]:
    """What a person is told of an example: its name, its class if it has one, and its text.

    Args:
        data: Where it is from.
        part: Which examples.
        place: Which of them.
    """
    index = int(part.index[place])
    label = -1 if part.labels is None else int(part.labels[place])
    known = label >= 0 and data.class_names is not None
    named = data.class_names[label] if known and data.class_names is not None else None
    return {"name": data.name(index), "label": named, "text": data.show(index)[:_TEXT]}


def pictures(images: Tensor) -> Tensor:
    """Images in [0, 1] with any number of channels as `image_grid` takes them: grey, or the first three channels.

    Args:
        images: Shape (n, c, h, w).
    """
    return 2 * images[:, : 3 if images.shape[1] >= 3 else 1].cpu() - 1


def neighbour_rows(heldout: Part, train: Part, places: Tensor) -> Tensor:
    """Each query and then its neighbours, as pictures.

    Args:
        heldout: The queries are the first of these images.
        train: Where the neighbours are.
        places: Places of the neighbours of each query.
    """
    rows = [
        torch.cat([heldout.inputs["image"][query : query + 1].cpu(), train.inputs["image"].cpu()[found]])
        for query, found in enumerate(places)
    ]
    return pictures(torch.cat(rows))
