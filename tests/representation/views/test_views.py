"""What holds for views of every modality: an example's view depends on nothing but the example and its draws."""

import itertools
import pickle

import pytest
import torch

from lsdr.representation.data.open import open_data
from lsdr.representation.data.representation_data import examples
from lsdr.representation.inputs import concatenate, rows
from lsdr.representation.views.catalogue import STRENGTHS, TRANSFORMATIONS
from lsdr.representation.views.open import open_views, single, sweep

CPU = torch.device("cpu")
ALL = {modality: ",".join(kinds) for modality, kinds in TRANSFORMATIONS.items()}
EACH = [(modality, name) for modality, kinds in TRANSFORMATIONS.items() for name in kinds]
SPECS = [*EACH, *((modality, "default") for modality in ALL), *ALL.items()]


def wobble(inputs, generator):
    """Draws from everything that there is, and once more for some examples than for others."""
    made = dict(inputs)
    for name, value in inputs.items():
        if value.is_floating_point():
            noise = torch.randn(value.shape, generator=generator) + torch.rand(value.shape)
            made[name] = value + (noise if float(torch.rand(())) < 0.5 else 0 * noise)
    return made


def setup(data, spec, seed=0):
    view = open_views(spec, data)
    inputs, _, _ = examples(data.train, data.fields, 12, CPU)
    return view, inputs, view.draws(12, torch.Generator().manual_seed(seed))


def same(one, other):
    return set(one) == set(other) and all(one[name].equal(other[name]) for name in one)


def cut(total, *parts):
    """Contiguous shares of an uneven batch, as ranks get them and as each rank cuts them again."""
    edges = [round(total * k / sum(parts)) for k in torch.tensor([0, *parts]).cumsum(0).tolist()]
    return [slice(a, b) for a, b in itertools.pairwise(edges) if b > a]


@pytest.mark.parametrize(("modality", "spec"), SPECS)
def test_views_do_not_depend_on_how_a_batch_is_cut(everything, modality, spec):
    view, inputs, draws = setup(everything[modality], spec)
    whole = view(inputs, draws)
    assert same(whole, view(inputs, draws))
    for parts in ((1,) * 12, (1, 2), (3, 1, 2), (5, 7)):
        made = [view(rows(inputs, each), rows(draws, each)) for each in cut(12, *parts)]
        assert same(concatenate(made), whole)


@pytest.mark.parametrize("modality", ["image", "table"])
def test_neither_do_views_with_a_function_that_draws(everything, modality):
    view, inputs, draws = setup(everything[modality], [wobble, "default", wobble])
    before = torch.get_rng_state()
    whole = view(inputs, draws)
    torch.rand(5)
    made = [view(rows(inputs, each), rows(draws, each)) for each in cut(12, 5, 1, 6)]
    assert same(concatenate(made), whole)
    torch.set_rng_state(before)
    view(inputs, draws)
    assert torch.get_rng_state().equal(before)
    assert not same(whole, view(inputs, view.draws(12, torch.Generator().manual_seed(1))))


def test_nor_on_the_number_of_threads(images):
    """Pictures so large that torch shares one out among threads."""
    data = images(3, (3, 160, 160))
    view, inputs, draws = setup_many(data)
    whole = view(inputs, draws)
    torch.set_num_threads(2)
    try:
        assert same(view(inputs, draws), whole)
        made = [view(rows(inputs, slice(k, k + 1)), rows(draws, slice(k, k + 1))) for k in range(3)]
    finally:
        torch.set_num_threads(1)
    assert same(concatenate(made), whole)


def setup_many(data):
    view = open_views(ALL["image"], data)
    inputs, _, _ = examples(data.train, data.fields, 3, CPU)
    return view, inputs, view.draws(3, torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("modality", "spec"), SPECS)
def test_views_leave_the_inputs_alone_and_keep_their_form(everything, modality, spec):
    view, inputs, draws = setup(everything[modality], spec)
    before = {name: value.clone() for name, value in inputs.items()}
    state = torch.get_rng_state()
    made = view(inputs, draws)
    assert same(inputs, before)
    assert torch.get_rng_state().equal(state)
    for name, value in made.items():
        assert value.shape == inputs[name].shape
        assert value.dtype == inputs[name].dtype
        assert bool(value.isfinite().all())
    if modality == "image":
        assert 0 <= float(made["image"].min()) <= float(made["image"].max()) <= 1
    assert same(made, inputs) == (spec == "dropout")


@pytest.mark.parametrize(("modality", "spec"), SPECS)
def test_draws_are_a_row_an_example_and_a_function_of_the_generator(everything, modality, spec):
    view, inputs, draws = setup(everything[modality], spec)
    assert all(len(value) == 12 for value in draws.values())
    assert same(draws, setup(everything[modality], spec)[2])
    assert not draws or not same(draws, setup(everything[modality], spec, seed=1)[2])
    assert all(len(value) == 0 for value in view.draws(0, torch.Generator()).values())
    assert same(view(rows(inputs, slice(0)), rows(draws, slice(0))), rows(inputs, slice(0)))


@pytest.mark.parametrize(("modality", "name"), EACH)
def test_two_views_differ_between_draws_and_between_examples(everything, modality, name):
    if name == "dropout":
        return
    view, inputs, draws = setup(everything[modality], f"{name}:{max(TRANSFORMATIONS[modality][name].sweep)}")
    last = {key: value[-1:] for key, value in inputs.items()}
    many = {key: value.expand(12, *value.shape[1:]) for key, value in last.items()}
    made = view(many, draws)
    distinct = {b"".join(value[k].numpy().tobytes() for value in made.values()) for k in range(12)}
    if name in ("flip", "grey"):  # the examples are one and the same, and so are the draws at strength 1
        assert len(distinct) == 1
    elif modality == "text":  # so many stretches of 4 there are in 10 tokens, and so many ways to mask one
        assert len(distinct) > 3
    else:
        assert len(distinct) > 9


def test_views_say_what_they_are(everything):
    view = open_views(["rotation:30,blur", wobble], everything["image"])
    assert view.transformations[:2] == ("rotation:30", "blur:1")
    assert view.names[:2] == ("rotation", "blur")
    assert view.names[2].endswith(":wobble")
    assert list(view.strengths.values()) == [30, 1, None]
    assert view.dropout == 0
    assert open_views("dropout:0.25,span_deletion", everything["text"]).dropout == 0.25
    assert open_views("default", everything["text"]).dropout == 0.1


@pytest.mark.parametrize("modality", ALL)
def test_views_can_be_pickled(everything, modality):
    view, inputs, draws = setup(everything[modality], [ALL[modality], wobble])
    assert same(pickle.loads(pickle.dumps(view))(inputs, draws), view(inputs, draws))


def test_draws_of_two_views_can_be_told_from_inputs(everything):
    for modality, spec in ALL.items():
        view, inputs, draws = setup(everything[modality], spec)
        assert not set(draws) & {*inputs, "index", "label"}
        extra = {**inputs, "mine": torch.arange(12)}
        assert view(extra, draws)["mine"].equal(extra["mine"])


def test_the_default_follows_the_channels(images):
    named = {channels: open_views("", images(4, (channels, 5, 5))).names for channels in (1, 3, 13)}
    assert {"colour", "grey"} & set(named[1]) == set()
    assert {"colour", "grey"} & set(named[3]) == {"colour", "grey"}
    assert {"colour", "grey"} & set(named[13]) == {"colour"}


def test_every_strength_of_the_sweep_can_be_measured(everything, images, table):
    for data in (*everything.values(), images(4, (1, 1, 1)), images(4, (13, 1, 6)), table(numeric=0), table(5, 1, 0)):
        found = sweep(data)
        assert set(found) <= set(STRENGTHS[data.modality])
        inputs, _, _ = examples(data.train, data.fields, 4, CPU)
        for name, strengths in found.items():
            view = single(name, strengths[-1], data)
            made = view(inputs, view.draws(4, torch.Generator()))
            assert all(bool(value.isfinite().all()) for value in made.values())
        for name in set(STRENGTHS[data.modality]) - set(found) - {"colour"}:
            with pytest.raises(ValueError, match=r"these images have one channel|this table has none|nothing of a row"):
                single(name, 0.5, data)


def test_a_single_transformation_is_named_and_checked(everything):
    assert single("rotation", 30.0, everything["image"]).transformations == ("rotation:30",)
    with pytest.raises(ValueError, match="at most 180"):
        single("rotation", 200.0, everything["image"])
    with pytest.raises(ValueError, match="close: rotation"):
        single("rotatoin", 20.0, everything["image"])
    with pytest.raises(ValueError, match="the encoder's own while it trains"):
        single("dropout", 0.1, everything["text"])


def test_what_is_no_input_of_the_view_is_refused(everything):
    view, inputs, draws = setup(everything["image"], "blur")
    with pytest.raises(TypeError, match=r"expected images as floating-point numbers in \[0, 1\], got torch.uint8"):
        view({"image": (inputs["image"] * 255).byte()}, draws)
    with pytest.raises(ValueError, match=r"expected images of shape \(n, 3, 9, 7\), got \(12, 3, 9, 6\)"):
        view({"image": inputs["image"][..., 1:]}, draws)
    with pytest.raises(ValueError, match="expected inputs image, got tokens"):
        view({"tokens": torch.ones(12, 3)}, draws)
    with pytest.raises(ValueError, match=r"expected draws of 12 examples, as there are inputs; got 1 \(0.kernel\)"):
        view(inputs, rows(draws, slice(1)))
    with pytest.raises(
        ValueError, match=r"expected what this view's draws.. gives .blur:1., got .*nothing for 'kernel'"
    ):
        view(inputs, open_views("noise", everything["image"]).draws(12, torch.Generator()))


@pytest.mark.parametrize("source", ["digits", "wine"])
def test_views_of_real_data(source):
    data = open_data(source)
    view = open_views("default", data)
    inputs, _, _ = examples(data.train, data.fields, 16, CPU)
    made = [view(inputs, view.draws(16, torch.Generator().manual_seed(seed))) for seed in (0, 1)]
    assert not same(*made)
