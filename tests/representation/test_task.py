"""The task: two views of each example in one pass, exact over micro-batches, collapse called out."""

import importlib.util
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from lsdr.representation.objective import objective_regularizers
from lsdr.training.order import EpochOrder
from lsdr.training.stepper import build_accelerator, open_stepper

_spec = importlib.util.spec_from_file_location("small", Path(__file__).with_name("small.py"))
small = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(small)


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def task():
    return small.task(small.config())


def batch_of(task, count=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {**task.dataset.__getitems__(list(range(count))), **task.draws(count, generator)}


def test_both_views_of_every_example_go_through_the_encoder_at_once(task):
    batch, seen = batch_of(task), []
    handle = task.model.register_forward_pre_hook(lambda module, given: seen.append(given[0]["image"]))
    losses, context = task.losses(task.model, batch)
    handle.remove()
    (image,) = seen
    assert image.shape == (12, 1, 8, 8)
    clean = batch["image"] / 255
    assert not torch.allclose(image[:6], image[6:])  # two views
    distances = torch.cdist(image.flatten(1), clean.flatten(1))
    assert float((distances.argmin(1) == torch.arange(6).repeat(2)).float().mean()) > 0.7  # of the same examples
    assert torch.equal(losses, torch.zeros(6))
    assert set(context["record"]) == {"invariance", "z_std", "z_participation_ratio"}


def test_what_is_recorded_is_what_it_says(task):
    with torch.no_grad():
        batch, found = batch_of(task), []
        handle = task.model.projector.register_forward_hook(lambda module, given, output: found.append(output))
        _, context = task.losses(task.model, batch)
        handle.remove()
    a, b = found[0].double().chunk(2)
    a, b = a - a.mean(0), b - b.mean(0)
    covariance = (a.T @ a + b.T @ b) / 12
    record = {name: float(value) for name, value in context["record"].items()}
    assert record["invariance"] == pytest.approx(float((a.T @ b).trace() / 6 / covariance.trace()), rel=1e-4)
    assert record["z_std"] == pytest.approx(float(covariance.diagonal().mean().sqrt()), rel=1e-4)
    ratio = covariance.trace() ** 2 / covariance.square().sum()
    assert record["z_participation_ratio"] == pytest.approx(float(ratio), rel=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"objective": "log_participation_ratio"},
        {"objective": "spectral_contrastive", "projector": 0},
        {"objective": "sigreg"},
        {"data": "breast-cancer", "contaminate": 0.1},
        {"data": "texts", "length": 8, "vocabulary": 300, "views": "token_dropout:0.2"},
    ],
    ids=lambda options: " ".join(map(str, options.values())) or "default",
)
def test_micro_batches_give_the_gradient_of_the_one_batch(tmp_path, options):
    if options.get("data") == "texts":
        options = {**options, "data": small.texts(tmp_path / "texts")}
    gradients, records = [], []
    for parts in (1, 4):
        settings = small.config(training={"accumulate": parts}, **options)
        task = small.task(settings, torch.float64)
        order = EpochOrder(len(task.dataset), settings.training.batch_size, 0)
        examples = task.dataset.__getitems__(order.batch(0))
        with open_stepper(
            task, settings.training, build_accelerator(settings.training), objective_regularizers(settings)
        ) as stepper:
            records.append(stepper.gradient(0, examples))
            gradients.append(torch.cat([each.grad.flatten() for each in task.model.parameters()]))
    difference = (gradients[0] - gradients[1]).norm() / gradients[0].norm()
    assert float(difference) < 1e-11
    assert records[1].penalty == pytest.approx(records[0].penalty, rel=1e-6)
    assert records[0].loss == records[1].loss == 0.0


def test_evaluation_is_the_same_every_time_and_leaves_no_trace(task):
    task.model.train()
    state = torch.random.get_rng_state()
    found = [task.evaluate(task.model) for _ in range(2)]
    assert found[0] == found[1]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(module.training for module in task.model.modules())
    assert {"train_objective", "heldout_objective", "invariance", "effective_rank", "knn"} <= found[0].keys()
    assert 0 <= found[0]["knn"] <= 1


def test_the_objective_that_is_watched_is_the_one_that_trains():
    for objective in ("vicreg", "sim_clr"):
        settings = small.config(objective=objective, weight=0.5)
        task = small.task(settings)
        with open_stepper(
            task, settings.training, build_accelerator(settings.training), objective_regularizers(settings)
        ) as stepper:
            found = []
            handle = task.model.projector.register_forward_hook(lambda module, given, output: found.append(output))  # noqa: B023
            gradient = stepper.gradient(0, task.dataset.__getitems__(range(15)))
            handle.remove()
        value = task.objective(*found[0].detach().chunk(2))
        assert gradient.loss + gradient.penalty == pytest.approx(0.5 * value, rel=1e-5)


def test_a_constant_encoder_is_called_out_once(task):
    healthy = task.evaluate(task.model)
    planted = small.task(small.config())
    with torch.no_grad():
        planted.model.backbone.last[2].weight.zero_()
    collapsed = planted.evaluate(planted.model)
    assert collapsed["variation"] < 1e-6 < 1e-4 < healthy["variation"]
    assert planted.on_monitored(healthy, 0) == []
    (event,) = planted.on_monitored(collapsed, 1)
    assert (event["kind"], "collapsed" in event["message"]) == ("collapse", True)
    assert planted.on_monitored(collapsed, 2) == []
    assert planted.on_monitored(healthy, 3) == []
    assert planted.on_monitored({"sigma_max": 1.0}, 3) == []
    assert len(planted.on_monitored(collapsed, 4)) == 1


def test_codes_in_one_direction_or_not_finite_are_called_out():
    planted = small.task(small.config())
    values = planted.evaluate(planted.model)
    (event,) = planted.on_monitored({**values, "participation_ratio": 1.004}, 0)
    assert "1.00 directions" in event["message"]
    with torch.no_grad():
        planted.model.backbone.last[2].weight.fill_(torch.nan)
    fresh = small.task(small.config())
    (event,) = [each for each in fresh.on_monitored(planted.evaluate(planted.model), 0) if each["kind"] == "collapse"]
    assert "not finite" in event["message"]


def test_outliers_and_dropout_are_where_the_options_say(tmp_path):
    dirty, clean = (small.task(small.config(contaminate=share)) for share in (0.5, 0.0))
    assert not torch.equal(
        dirty.dataset.__getitems__(range(20))["image"], clean.dataset.__getitems__(range(20))["image"]
    )
    assert torch.equal(dirty.seen["image"], clean.seen["image"])  # what is watched stays clean
    texts = {"data": small.texts(tmp_path / "texts"), "length": 8, "vocabulary": 300}
    for views, rate in (("token_dropout:0.1,dropout:0.3", 0.3), ("token_dropout:0.1", 0.0)):
        encoder = small.task(small.config(views=views, **texts)).encoder
        assert encoder.backbone.settings["transformer"]["hidden_dropout_prob"] == rate


def test_every_block_is_looked_at(task):
    names = dict(task.model.named_modules())
    assert all(name in names for name in task.feature_layers())
    assert task.feature_layers()[-1] == "backbone"
    assert task.picture(task.model) is None
    assert isinstance(task.name(0), str)
