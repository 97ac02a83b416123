"""Which parts of its inputs a direction of the codes responds to: the gradient of the direction's score."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lsdr.layers.capture import capture
from lsdr.probes.evaluating import evaluating
from lsdr.representation.data.fields import Fields, ImageFields, TableFields, TextFields
from lsdr.representation.inputs import Inputs
from lsdr.representation.measures.material import Encode
from lsdr.representation.ordered_codes import OrderedCodes

_NAMED = 6
_THIRDS = (("upper", "middle", "lower"), ("left", "centre", "right"))


def saliency(encoder: Any, ordered: OrderedCodes, inputs: Inputs, directions: Sequence[int]) -> list[Tensor]:
    r"""How much the scores of directions change with each pixel or number of an example.

    .. math:: \frac{\partial}{\partial x} w_k^\top (f(x) - \bar z)

    Plain gradients, signed: they say what would change the score, not what made it. Of texts the gradient of each
    token's embedding e, times e: about what the score would lose if the token said nothing. Nothing of the encoder is
    changed, no parameter gets a gradient.

    Args:
        encoder: With `features(inputs)`.
        ordered: Its directions.
        inputs: n examples: images, a table's rows or texts.
        directions: Which ones, from 0; the encoder runs once for all.

    Returns:
        Of each, a tensor of the shape of the images, the numeric columns or the tokens.
    """
    with torch.enable_grad(), evaluating(encoder):
        if "tokens" in inputs:
            return _of_tokens(encoder, ordered, inputs, directions)
        name = "image" if "image" in inputs else "numeric"
        leaf = inputs[name].detach().clone().requires_grad_()
        return _gradients(encoder.features({**inputs, name: leaf}), ordered, leaf, directions)


def _gradients(codes: Tensor, ordered: OrderedCodes, leaf: Tensor, directions: Sequence[int]) -> list[Tensor]:
    """Of the sums of scores over examples, none of which sees another."""
    scores = (codes @ ordered.rotation[:, list(directions)].to(codes)).sum(0)
    return [torch.autograd.grad(score, leaf, retain_graph=True)[0] for score in scores]


def _of_tokens(encoder: Any, ordered: OrderedCodes, inputs: Inputs, directions: Sequence[int]) -> list[Tensor]:
    tokens, found = inputs["tokens"], list[Tensor]()

    def receive(name: str, module: nn.Module, output: Tensor) -> None:
        if not found and output.shape[:-1] == tokens.shape:
            found.append(output if output.requires_grad else output.requires_grad_())

    embeddings = {name: each for name, each in encoder.named_modules() if isinstance(each, nn.Embedding)}
    with capture(encoder, embeddings, receive):
        codes = encoder.features(inputs)
    if not found:
        raise ValueError("the encoder has no embedding of its tokens (nn.Embedding): they cannot be attributed to")
    return [(each * found[0].detach()).sum(-1) for each in _gradients(codes, ordered, found[0], directions)]


def responds(
    encoder: Any, encode: Encode, ordered: OrderedCodes, inputs: Inputs, fields: Fields, number: int
) -> list[list[tuple[str, float]]]:
    """What the first directions respond to in words, the strongest first.

    Tables: of a number the mean change of the score for one deviation more; of a category's level the mean change when
    the level is taken away, negated. Texts: the mean share of a token in the score, where it comes twice or more.
    Images: each ninth of the picture's share of the absolute gradient.

    Args:
        encoder: With `features(inputs)`.
        encode: Gives its codes.
        ordered: Its directions.
        inputs: Examples.
        fields: What they are.
        number: Of how many directions.
    """
    directions = range(number)
    if isinstance(fields, ImageFields):
        found = [_regions(each) for each in saliency(encoder, ordered, inputs, directions)]
    elif isinstance(fields, TextFields):
        found = [_words(each, inputs["tokens"], fields) for each in saliency(encoder, ordered, inputs, directions)]
    else:
        found = _levels(encode, ordered, inputs, fields, number)
        if fields.numeric:
            for own, slopes in zip(found, saliency(encoder, ordered, inputs, directions), strict=True):
                own += list(zip(fields.numeric, slopes.mean(0).tolist(), strict=True))
    return [sorted(each, key=lambda part: -abs(part[1]))[:_NAMED] for each in found]


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
    encode: Encode, ordered: OrderedCodes, inputs: Inputs, fields: TableFields, number: int
) -> list[list[tuple[str, float]]]:
    """What each level adds to the scores, against its being missing."""
    found: list[list[tuple[str, float]]] = [[] for _ in range(number)]
    if not fields.categorical:
        return found
    scores = ordered(encode(inputs))[:, :number]
    for column, name in enumerate(fields.categorical):
        without = {key: value.clone() for key, value in inputs.items()}
        without["categorical"][:, column] = 0
        without["missing"][:, len(fields.numeric) + column] = True
        change = scores - ordered(encode(without))[:, :number]
        codes = inputs["categorical"][:, column].cpu()
        for code, level in enumerate(fields.levels[column], start=1):
            if int((codes == code).sum()) > 1:
                for direction, mean in enumerate(change[codes == code].mean(0).tolist()):
                    found[direction].append((f"{name}={level}", mean))
    return found
