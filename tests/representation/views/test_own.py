"""Functions of the user's: what they get, and what is said where they would make a run wrong."""

import random
from functools import partial

import pytest
import torch

from lsdr.representation.data.representation_data import examples
from lsdr.representation.views.open import open_views


def negative(inputs):
    return {"image": 1 - inputs["image"]}


def speckle(inputs, generator):
    image = inputs["image"]
    return {"image": image * torch.rand(image.shape, generator=generator)}


def look(data, function, count=8):
    view = open_views([function], data)
    inputs, _, _ = examples(data.train, data.fields, count, torch.device("cpu"))
    return inputs["image"], view(inputs, view.draws(count, torch.Generator().manual_seed(0)))["image"]


def test_a_function_of_inputs_gets_them_all(images):
    sizes = []

    def counted(inputs):
        sizes.append(len(inputs["image"]))
        return negative(inputs)

    before, after = look(images(), counted)
    assert after.equal(1 - before)
    assert sizes[-1] == 8


def test_a_function_that_draws_gets_one_at_a_time_and_a_seed_of_its_own(images):
    seen = []

    def counted(inputs, generator):
        seen.append((len(inputs["image"]), generator.initial_seed(), torch.initial_seed()))
        return speckle(inputs, generator)

    before, after = look(images(), counted)
    assert {number for number, _, _ in seen} == {1}
    assert all(own == shared for _, own, shared in seen)
    assert len({own for _, own, _ in seen[-8:]}) == 8
    assert not after.equal(before)


def test_a_library_that_draws_from_the_global_generator_is_exact_too(images):
    def library(inputs, generator):
        return {"image": inputs["image"] * torch.rand(())}

    state = torch.get_rng_state()
    first = look(images(), library)[1]
    assert torch.get_rng_state().equal(state)
    torch.rand(3)
    assert look(images(), library)[1].equal(first)


def test_settings_and_partials_are_no_second_argument(images):
    def with_setting(inputs, strength=0.5):
        return {"image": inputs["image"] * strength}

    def with_generator(inputs, generator=None, strength=0.5):
        assert generator is not None
        return {"image": inputs["image"] * strength}

    for function in (with_setting, with_generator, partial(with_setting, strength=0.5)):
        before, after = look(images(), function)
        torch.testing.assert_close(after, before * 0.5)


def test_the_global_generator_comes_back_when_a_function_fails(images):
    calls = []

    def fails_late(inputs, generator):
        calls.append(1)
        if len(calls) > 7:
            raise RuntimeError("enough")
        return dict(inputs)

    state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="enough"):
        look(images(), fails_late)
    assert torch.get_rng_state().equal(state)


def in_place(inputs):
    inputs["image"].mul_(0.5)
    return inputs


def global_noise(inputs):
    return {"image": inputs["image"] * torch.rand(())}


def batch_mean(inputs):
    return {"image": inputs["image"] - inputs["image"].mean(0, keepdim=True)}


def endless(inputs):
    return {"image": inputs["image"] / 0}


def smaller(inputs):
    return {"image": inputs["image"][..., 1:]}


def renamed(inputs):
    return {"picture": inputs["image"]}


def tensor(inputs):
    return inputs["image"]


def as_bytes(inputs):
    return {"image": inputs["image"].byte()}


def python_noise(inputs, generator):
    return {"image": inputs["image"] * random.random()}


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (in_place, "changes its inputs in place, and the other view"),
        (global_noise, r"draws from torch's global generator; make it a function of \(inputs, generator\)"),
        (batch_mean, "makes something else of an example when it is alone"),
        (endless, "not finite"),
        (python_noise, "something else of the same examples the second time"),
        (smaller, r"keep .*{image: float32 \(2, 3, 9, 7\)}; got {image: float32 \(2, 3, 9, 6\)}"),
        (renamed, r"got {picture: float32"),
        (as_bytes, r"got {image: uint8"),
    ],
)
def test_a_function_that_would_make_a_run_wrong_is_refused(images, function, expected):
    with pytest.raises(ValueError, match=f"{function.__name__}.*{expected}"):
        look(images(), function)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (tensor, r"tensor to return inputs, {image: float32 \(2, 3, 9, 7\)}; got Tensor"),
        (lambda inputs, generator, strength: inputs, r"takes \(inputs, generator, strength\): use functools.partial"),
        (lambda inputs, *, strength: inputs, r"takes \(inputs, strength\)"),
        (lambda: None, r"expected a function of \(inputs\) or of \(inputs, generator\), and .*takes \(\)"),
        (torch.nn.Identity, "is a class: wrap what it makes in a function"),
    ],
)
def test_a_function_of_something_else_is_refused(images, function, expected):
    with pytest.raises(TypeError, match=expected):
        look(images(), function)


def test_what_goes_wrong_later_is_told_too(images):
    view = open_views([lambda inputs: {"image": inputs["image"][: 5 if len(inputs["image"]) > 2 else 2]}], images())
    with pytest.raises(ValueError, match=r"got {image: float32 \(5, 3, 9, 7\)}"):
        view({"image": torch.rand(8, 3, 9, 7)}, {})


def test_tables_and_texts_have_functions_too(table, texts):
    def shuffled(inputs, generator):
        order = torch.randperm(inputs["tokens"].shape[1], generator=generator)
        return {"tokens": inputs["tokens"][:, order]}

    def rounded(inputs):
        return {**inputs, "numeric": inputs["numeric"].round()}

    assert (
        open_views(["span_deletion", shuffled], texts())
        .names[1]
        .endswith(":test_tables_and_texts_have_functions_too.<locals>.shuffled")
    )
    assert open_views([rounded, "marginal"], table()).names[1] == "marginal"


def test_two_functions_draw_apart(images):
    view = open_views([speckle, speckle], images())
    draws = view.draws(3, torch.Generator().manual_seed(0))
    assert not draws["0.key"].equal(draws["1.key"])
