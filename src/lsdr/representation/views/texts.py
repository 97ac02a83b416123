"""Tokens masked and stretches taken out of texts."""

from functools import partial

import torch
from torch import Tensor

from lsdr.representation.data.fields import TextFields
from lsdr.representation.inputs import Inputs
from lsdr.representation.views.step import Draws, Step, spare_one, uniform


def change_tokens(name: str, strength: float, fields: TextFields) -> Step:
    """The step for a transformation of tokens. One token of a text is always left as it was.

    Args:
        name: "token_dropout", "span_deletion", or "dropout", which leaves the tokens alone.
        strength: In the units of `lsdr.representation.views.catalogue`.
        fields: Which tokens stand for nothing and for what was masked.
    """
    if name == "token_dropout":
        return Step(partial(_draw_tokens, fields.length), partial(_mask, strength, fields))
    if name == "span_deletion":
        return Step(_draw_start, partial(_take_out, strength, fields.padding))
    return Step(_draw_nothing, _leave)


def _draw_tokens(length: int, count: int, generator: torch.Generator) -> dict[str, Tensor]:
    return {"chance": uniform(count, generator, length)}


def _mask(rate: float, fields: TextFields, inputs: Inputs, draws: Draws) -> dict[str, Tensor]:
    tokens = inputs["tokens"]
    chance, present = draws["chance"][:, : tokens.shape[1]], tokens != fields.padding
    return {**inputs, "tokens": tokens.masked_fill(spare_one(chance < rate, present, chance), fields.mask)}


def _draw_start(count: int, generator: torch.Generator) -> dict[str, Tensor]:
    return {"start": uniform(count, generator)}


def _take_out(share: float, padding: int, inputs: Inputs, draws: Draws) -> dict[str, Tensor]:
    tokens = inputs["tokens"]
    present = tokens != padding
    length = present.sum(1)
    gone = torch.minimum((share * length).round().long(), (length - 1).clamp_min(0))
    start = (draws["start"] * (length - gone + 1)).long()
    place = present.cumsum(1) - 1
    kept = present & ((place < start[:, None]) | (place >= (start + gone)[:, None]))
    order = (~kept).to(torch.uint8).argsort(dim=1, stable=True)
    return {**inputs, "tokens": tokens.masked_fill(~kept, padding).gather(1, order)}


def _draw_nothing(count: int, generator: torch.Generator) -> dict[str, Tensor]:
    return {}


def _leave(inputs: Inputs, draws: Draws) -> dict[str, Tensor]:
    return dict(inputs)
