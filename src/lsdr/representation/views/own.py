"""A user's own function as a step of a view."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lsdr.representation.inputs import Inputs, concatenate, rows
from lsdr.representation.inputs import count as count_of
from lsdr.representation.views.step import Draws, Step, keys


def own_step(function: Callable[..., Any], name: str, sample: Inputs) -> Step:
    """The step for a function of the user's, after a look at what it does.

    A function of (inputs, generator) is called with one example at a time (tensors with a first dimension of 1) and a
    generator on the CPU that is seeded for this example of this step. While it runs, torch's global CPU generator has
    the same seed, for libraries that draw from there; after it, that is as it was. So whatever the function does, an
    example's view does not depend on the batch, on ranks or on micro-batches, and a replay makes it again.

    A function of (inputs) alone must not draw anything and is called with any number of examples at once, which is
    faster; what it makes of an example must not depend on the others.

    Args:
        function: Takes and returns named tensors; names, shapes and dtypes stay.
        name: What to call it in messages.
        sample: One or two training examples to try it on.

    Raises:
        TypeError: If it does not take one or two arguments, or returns something other than inputs.
        ValueError: If it changes names, shapes or dtypes, makes values that are not finite, draws without a generator,
            mixes examples, or does not make the same again.
    """
    takes_generator = _arguments(function, name) == 2
    call = partial(_called, function, name)
    if takes_generator:
        step = Step(_draw_keys, partial(_one_by_one, call))
    else:
        step = Step(_draw_nothing, partial(_all_at_once, call))
    _try(step, name, sample)
    return step


def _arguments(function: Callable[..., Any], name: str) -> int:
    wanted = "expected a function of (inputs) or of (inputs, generator)"
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise TypeError(f"{wanted}, and {name} does not say what it takes: wrap it in a function") from error
    if inspect.isclass(function):
        raise TypeError(f"{wanted}, and {name} is a class: wrap what it makes in a function")
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p.name for p in places if p.default is p.empty]
    keywords = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    # An argument with a default is a setting, unless it is called what a second argument is for.
    takes = max(len(required), 2 if len(places) > 1 and places[1].name == "generator" else 0)
    if takes not in (1, 2) or keywords:
        raise TypeError(f"{wanted}, and {name} takes ({', '.join([*required, *keywords])}): use functools.partial")
    return takes


def _draw_keys(count: int, generator: torch.Generator) -> dict[str, Tensor]:
    return {"key": keys(count, generator)}


def _draw_nothing(count: int, generator: torch.Generator) -> dict[str, Tensor]:
    return {}


def _called(function: Callable[..., Any], name: str, inputs: Inputs, *generator: torch.Generator) -> dict[str, Tensor]:
    made = function(dict(inputs), *generator)
    if not isinstance(made, Mapping) or not all(isinstance(value, Tensor) for value in made.values()):
        raise TypeError(f"expected {name} to return inputs, {_described(inputs)}; got {_described(made)}")
    if _described(made) != _described(inputs):
        raise ValueError(
            f"expected {name} to keep names, shapes and dtypes, {_described(inputs)}; got {_described(made)}"
        )
    return dict(made)


def _described(made: Any) -> str:
    if not isinstance(made, Mapping):
        return f"{type(made).__name__}"
    values = {
        key: f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
        if isinstance(value, Tensor)
        else type(value).__name__
        for key, value in made.items()
    }
    return "{" + ", ".join(f"{key}: {values[key]}" for key in sorted(values)) + "}"


def _all_at_once(call: Callable[..., dict[str, Tensor]], inputs: Inputs, draws: Draws) -> dict[str, Tensor]:
    return call(inputs)


def _one_by_one(call: Callable[..., dict[str, Tensor]], inputs: Inputs, draws: Draws) -> dict[str, Tensor]:
    seeds = draws["key"].tolist()
    before = torch.default_generator.get_state()
    try:
        made = []
        for number, seed in enumerate(seeds):
            torch.default_generator.manual_seed(seed)
            made.append(call(rows(inputs, slice(number, number + 1)), torch.Generator().manual_seed(seed)))
    finally:
        torch.default_generator.set_state(before)
    return concatenate(made) if made else dict(inputs)


def _try(step: Step, name: str, sample: Inputs) -> None:
    """Refuse what would make a run wrong without a word."""
    given = {key: value.clone() for key, value in sample.items()}
    draws = step.draw(count_of(sample), torch.Generator().manual_seed(0))
    before = torch.default_generator.get_state()
    made = step.apply(given, draws)
    if not torch.default_generator.get_state().equal(before):
        torch.default_generator.set_state(before)
        raise ValueError(
            f"{name} draws from torch's global generator; make it a function of (inputs, generator), and it gets one "
            "that is seeded for each example"
        )
    if not _same(given, sample):
        raise ValueError(f"{name} changes its inputs in place, and the other view is made of them too; change a copy")
    if any(value.is_floating_point() and not value.isfinite().all() for value in made.values()):
        raise ValueError(f"{name} makes values that are not finite of training examples")
    if not _same(step.apply(given, draws), made):
        raise ValueError(
            f"{name} makes something else of the same examples the second time; draw from the generator that a "
            "function of (inputs, generator) gets, and from nothing else"
        )
    alone = step.apply(rows(given, slice(1)), rows(draws, slice(1)))
    if not all(torch.allclose(alone[key], value[:1], rtol=1e-4, atol=1e-5) for key, value in made.items()):
        raise ValueError(
            f"{name} makes something else of an example when it is alone; do the same to each row, or make it a "
            "function of (inputs, generator), which gets one example at a time"
        )


def _same(one: Inputs, other: Inputs) -> bool:
    return all(one[key].equal(value) for key, value in other.items())
