"""What a denoiser is conditioned on: nothing, a tensor with one entry per image, or several of these by name."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

Given = Tensor | Mapping[str, Any] | None
"""Class labels or another tensor, or tensors by name (mappings, lists and tuples within are fine), or nothing."""


def each_tensor(function: Callable[[str, Tensor], Tensor], given: Any, name: str = "conditioning") -> Any:
    """Apply a function to every tensor of a conditioning, and keep its shape: mappings, lists, tuples, other values.

    Args:
        function: Called with what the tensor is called, for messages, and the tensor.
        given: The conditioning; what is neither a tensor nor holds one stays as it is.
        name: What it is called.

    Returns:
        The same with other tensors; mappings become dicts.

    Example:
        >>> each_tensor(lambda name, each: 2 * each, {"text": torch.ones(1), "more": ({"ids": torch.ones(1)}, None)})
        {'text': tensor([2.]), 'more': ({'ids': tensor([2.])}, None)}
    """
    if isinstance(given, Tensor):
        return function(name, given)
    if isinstance(given, Mapping):
        return {key: each_tensor(function, value, f"{name}[{key!r}]") for key, value in given.items()}
    if isinstance(given, list | tuple):
        parts = [each_tensor(function, value, f"{name}[{place}]") for place, value in enumerate(given)]
        return type(given)(*parts) if hasattr(given, "_fields") else type(given)(parts)  # a named tuple stays one
    return given


def tensors_of(given: Any) -> list[Tensor]:
    """All tensors of a conditioning, in their order.

    Example:
        >>> tensors_of({"text": torch.ones(1), "more": {"ids": torch.zeros(1)}, "scale": 2.0})
        [tensor([1.]), tensor([0.])]
    """
    found: list[Tensor] = []
    each_tensor(lambda name, each: found.append(each) or each, given)  # type: ignore[func-returns-value]
    return found


def with_tensors(given: Any, tensors: list[Tensor]) -> Any:
    """The conditioning with other tensors, in the order of `tensors_of`.

    Example:
        >>> with_tensors({"text": torch.ones(1), "scale": 2.0}, [torch.zeros(3)])
        {'text': tensor([0., 0., 0.]), 'scale': 2.0}
    """
    rest = iter(tensors)
    return each_tensor(lambda name, each: next(rest), given)


def check_conditioning(given: Given, count: int) -> None:
    """Refuse a conditioning that has not one entry for each image.

    Args:
        given: The conditioning.
        count: How many images there are.

    Raises:
        ValueError: If a tensor in it has another number of entries, or none at all; the message names it.

    Example:
        >>> check_conditioning({"text": torch.zeros(2, 77, 32)}, 3)
        Traceback (most recent call last):
        ValueError: conditioning['text'] has shape (2, 77, 32) for 3 images; pass one entry per image
    """

    def check(name: str, each: Tensor) -> Tensor:
        if each.ndim < 1 or len(each) != count:
            raise ValueError(f"{name} has shape {tuple(each.shape)} for {count} images; pass one entry per image")
        return each

    each_tensor(check, given)


def rows_of(given: Any, rows: Tensor | slice) -> Any:
    """Some rows of every tensor of a conditioning.

    Args:
        given: The conditioning, one entry per image.
        rows: A slice, or the numbers of the rows; they may repeat.

    Returns:
        The conditioning of these images.

    Example:
        >>> rows_of({"text": torch.tensor([5.0, 6.0, 7.0])}, torch.tensor([2, 0, 0]))
        {'text': tensor([7., 5., 5.])}
    """
    return each_tensor(lambda name, each: each[rows if isinstance(rows, slice) else rows.to(each.device)], given)


def joined(one: Any, other: Any) -> Any:
    """Two conditionings of the same kind, the rows of one before those of the other.

    Args:
        one: A conditioning.
        other: A conditioning with the same names.

    Returns:
        One with the rows of both; what is no tensor is that of the first.

    Raises:
        ValueError: If one has tensors where the other has none, or of shapes that do not go together.

    Example:
        >>> joined({"text": torch.zeros(1, 2)}, {"text": torch.ones(1, 2)})
        {'text': tensor([[0., 0.], [1., 1.]])}
    """
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        if one.keys() != other.keys():
            raise ValueError(
                f"two conditionings have other names, {sorted(map(str, one))} and {sorted(map(str, other))}; they must "
                "be the same"
            )
        return {key: joined(value, other[key]) for key, value in one.items()}
    if isinstance(one, list | tuple) and type(one) is type(other) and len(one) == len(other):
        return with_tensors(one, tensors_of([joined(*pair) for pair in zip(one, other, strict=True)]))
    if isinstance(one, Tensor) and isinstance(other, Tensor) and one.shape[1:] == other.shape[1:]:
        return torch.cat([one, other.to(one)])
    if isinstance(one, Tensor) or isinstance(other, Tensor) or tensors_of([one, other]):
        shapes = [tuple(each.shape) if isinstance(each, Tensor) else type(each).__name__ for each in (one, other)]
        raise ValueError(f"two conditionings do not go together: {shapes[0]} and {shapes[1]}; encode them alike")
    return one
