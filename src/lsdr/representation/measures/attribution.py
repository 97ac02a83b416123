"""Which parts of its inputs a direction of the codes responds to: the gradient of the direction's score."""

from typing import Any

import torch
from torch import Tensor, nn

from lsdr.layers.capture import capture
from lsdr.probes.evaluating import evaluating
from lsdr.representation.data.fields import Fields, ImageFields, TableFields, TextFields
from lsdr.representation.inputs import Inputs, rows
from lsdr.representation.measures.material import Encode
from lsdr.representation.ordered_codes import OrderedCodes

_NAMED = 6
_THIRDS = (("upper", "middle", "lower"), ("left", "centre", "right"))


def saliency(encoder: Any, ordered: OrderedCodes, direction: int, inputs: Inputs) -> Tensor:
    r"""How much the score of a direction changes with each pixel or number of an example.

    .. math:: \frac{\partial}{\partial x} w_k^\top (f(x) - \bar z)

    Plain gradients, signed: they say what would change the score, not what made it. Of texts the gradient of each
    token's embedding e, times e: about what the score would lose if the token said nothing. Nothing of the encoder is
    changed, no parameter gets a gradient.

    Args:
        encoder: With `features(inputs)`.
        ordered: Its directions.
        direction: Which, from 0.
        inputs: n examples: images, a table's rows or texts.

    Returns:
        Shape of the image, the numeric columns or the tokens.
    """
    axis = ordered.rotation[:, direction]
    with torch.enable_grad(), evaluating(encoder):
        if "tokens" in inputs:
            return _of_tokens(encoder, axis, inputs)
        name = "image" if "image" in inputs else "numeric"
        leaf = inputs[name].detach().clone().requires_grad_()
        score = (encoder.features({**inputs, name: leaf}) @ axis.to(leaf)).sum()
        return torch.autograd.grad(score, leaf)[0]


def _of_tokens(encoder: Any, axis: Tensor, inputs: Inputs) -> Tensor:
    tokens, found = inputs["tokens"], list[Tensor]()

    def receive(name: str, module: nn.Module, output: Tensor) -> None:
        if not found and output.shape[:-1] == tokens.shape:
            found.append(output if output.requires_grad else output.requires_grad_())

    embeddings = {name: each for name, each in encoder.named_modules() if isinstance(each, nn.Embedding)}
    with capture(encoder, embeddings, receive):
        codes = encoder.features(inputs)
    if not found:
        raise ValueError("the encoder has no embedding of its tokens (nn.Embedding): they cannot be attributed to")
    gradient = torch.autograd.grad((codes @ axis.to(codes)).sum(), found[0])[0]
    return (gradient * found[0].detach()).sum(-1)


def responds(
    encoder: Any, encode: Encode, ordered: OrderedCodes, direction: int, inputs: Inputs, fields: Fields
) -> list[tuple[str, float]]:
    """What a direction responds to in words, the strongest first.

    Tables: of a number the mean change of the score for one deviation more; of a category's level the mean change when
    the level is taken away, negated. Texts: the mean share of a token in the score, where it comes twice or more.
    Images: each ninth of the picture's share of the absolute gradient.

    Args:
        encoder: With `features(inputs)`.
        encode: Gives its codes.
        ordered: Its directions.
        direction: Which, from 0.
        inputs: Examples.
        fields: What they are.
    """
    if isinstance(fields, ImageFields):
        found = _regions(saliency(encoder, ordered, direction, inputs))
    elif isinstance(fields, TextFields):
        found = _words(saliency(encoder, ordered, direction, inputs), inputs["tokens"], fields)
    else:
        found = _levels(encode, ordered, direction, inputs, fields)
        if fields.numeric:
            slopes = saliency(encoder, ordered, direction, inputs).mean(0).tolist()
            found += list(zip(fields.numeric, slopes, strict=True))
    return sorted(found, key=lambda each: -abs(each[1]))[:_NAMED]


def _regions(gradient: Tensor) -> list[tuple[str, float]]:
    """Shares of nine regions."""
    strength = gradient.abs().sum((0, 1))
    total = float(strength.sum()) or 1.0
    height, width = strength.shape
    found = []
    for row, above in enumerate(_THIRDS[0]):
        for column, side in enumerate(_THIRDS[1]):
            top, left = height * row // 3, width * column // 3
            region = strength[top : height * (row + 1) // 3, left : width * (column + 1) // 3]
            found.append((f"{above} {side}", float(region.sum()) / total))
    return found


def _words(shares: Tensor, tokens: Tensor, fields: TextFields) -> list[tuple[str, float]]:
    """Mean over occurrences."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(fields.tokenizer)
    found = []
    for token in tokens.unique().tolist():
        here = tokens == token
        if token != fields.padding and int(here.sum()) > 1:
            found.append((str(tokenizer.id_to_token(token)), float(shares[here].mean())))
    return found


def _levels(
    encode: Encode, ordered: OrderedCodes, direction: int, inputs: Inputs, fields: TableFields
) -> list[tuple[str, float]]:
    """What each level adds to the score, against its being missing."""
    found = []
    score = ordered(encode(inputs))[:, direction] if fields.categorical else torch.empty(0)
    for column, name in enumerate(fields.categorical):
        without = {key: value.clone() for key, value in rows(inputs, slice(None)).items()}
        without["categorical"][:, column] = 0
        without["missing"][:, len(fields.numeric) + column] = True
        change = score - ordered(encode(without))[:, direction]
        codes = inputs["categorical"][:, column].cpu()
        for code, level in enumerate(fields.levels[column], start=1):
            if int((codes == code).sum()) > 1:
                found.append((f"{name}={level}", float(change[codes == code].mean())))
    return found
