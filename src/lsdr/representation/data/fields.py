"""What there is to know of the examples of a data set before any of them is seen: enough to build an encoder."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Modality = Literal["image", "text", "table"]


@dataclass(frozen=True)
class ImageFields:
    """Images of one size, any number of channels.

    Attributes:
        shape: (C, H, W).
        mean: Of each channel, over training images in [0, 1].
        deviation: Standard deviation of each channel in the same scale, 1 where a channel is constant.
        largest: The raw value that becomes 1; 255 for bytes.
        smallest: The raw value that becomes 0.
    """

    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    largest: float = 255.0
    smallest: float = 0.0


@dataclass(frozen=True)
class TextFields:
    """Texts as numbers of tokens.

    Attributes:
        vocabulary: How many tokens there are.
        length: Tokens of an example, padded or cut to it.
        tokenizer: The tokenizer, as JSON that `tokenizers.Tokenizer.from_str` reads.
        padding: Number of the token that fills up.
        unknown: Number of the token for what the tokenizer does not know.
        mask: Number of the token that stands where another was taken out.
    """

    vocabulary: int
    length: int
    tokenizer: str
    padding: int = 0
    unknown: int = 1
    mask: int = 2


@dataclass(frozen=True)
class TableFields:
    """Columns of a table.

    Attributes:
        numeric: Names of the columns of numbers.
        categorical: Names of the columns of categories.
        cardinalities: Of each categorical column, how many codes there are: its levels, and 0 for missing or unknown.
        mean: Of each numeric column, over training rows.
        deviation: Standard deviation of each numeric column.
        levels: Of each categorical column, what codes 1, 2, ... stand for.
    """

    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    cardinalities: tuple[int, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    levels: tuple[tuple[str, ...], ...]


Fields = ImageFields | TextFields | TableFields
_KINDS: dict[str, type[Fields]] = {"image": ImageFields, "text": TextFields, "table": TableFields}


def fields_to_json(fields: Fields) -> dict[str, Any]:
    """Fields as JSON can hold them, for `fields_from_json`.

    Example:
        >>> fields_to_json(ImageFields((1, 8, 8), (0.5,), (0.25,)))["modality"]
        'image'
    """
    modality = next(name for name, kind in _KINDS.items() if type(fields) is kind)
    return {"modality": modality, **asdict(fields)}


def fields_from_json(saved: Mapping[str, Any]) -> Fields:
    """Fields that `fields_to_json` wrote, after a way through JSON.

    Args:
        saved: What it returned.

    Raises:
        ValueError: If it is something else.

    Example:
        >>> fields = ImageFields((1, 8, 8), (0.5,), (0.25,))
        >>> fields_from_json(fields_to_json(fields)) == fields
        True
    """
    kept = dict(saved)
    kind = _KINDS.get(str(kept.pop("modality", None)))
    try:
        if kind is None:
            raise TypeError(f"its modality is {saved.get('modality')!r}")
        return kind(**{name: _frozen(value) for name, value in kept.items()})
    except TypeError as error:
        raise ValueError(f"expected fields written by fields_to_json, got others: {error}") from error


def _frozen(value: Any) -> Any:
    return tuple(_frozen(each) for each in value) if isinstance(value, list | tuple) else value
