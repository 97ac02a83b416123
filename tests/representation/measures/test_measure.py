"""Everything measured of an encoder at once, and what is said of encoders that are no good."""

import copy
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import Dataset

from lsdr.representation.data.fields import ImageFields, TableFields
from lsdr.representation.data.representation_data import RepresentationData
from lsdr.representation.encoder import Encoder
from lsdr.representation.measures.catalogue import described
from lsdr.representation.measures.config import RepresentationMeasureConfig
from lsdr.representation.measures.measure import measure_all
from lsdr.representation.views.open import open_views

SMALL = RepresentationMeasureConfig(
    train_examples=120, heldout_examples=60, view_examples=30, draws=2, directions=3, shown=4, shares=(0.1, 1.0)
)
FILES = ("invariance", "spectra", "corruption", "probes", "neighbours", "directions", "findings")


PIXELS = ImageFields((1, 8, 8), (0.3,), (0.2,))
COLUMNS = TableFields(("age", "height", "ink"), ("colour",), (3,), (0.0,) * 3, (1.0,) * 3, (("red", "blue"),))


class Rows(Dataset):
    """Examples in memory, as a part of the data."""

    def __init__(self, label=None, **inputs):
        self.inputs, self.label = inputs, label

    def __len__(self):
        return len(next(iter(self.inputs.values())))

    def __getitems__(self, places):
        batch = {name: value[places] for name, value in self.inputs.items()}
        batch["index"] = torch.tensor(places, dtype=torch.int64)
        return batch if self.label is None else {**batch, "label": self.label[places]}


class Small(Encoder):
    """An encoder of flattened pixels."""

    def __init__(self, inputs=64, width=8):
        backbone = nn.Sequential(nn.Flatten(), nn.Linear(inputs, 16), nn.Tanh(), nn.Linear(16, width))
        super().__init__(backbone, nn.Linear(width, 4), PIXELS)

    def features(self, inputs):
        return self.backbone(inputs["image"])

    def forward(self, inputs):
        return self.projector(self.features(inputs))

    def blocks(self):
        return ("backbone.1", "backbone")


class Constant(Small):
    """What has collapsed: the same code for all."""

    def features(self, inputs):
        return self.backbone(inputs["image"]) * 0 + torch.arange(8.0)


class Broken(Small):
    """NaN wherever the picture is bright."""

    def features(self, inputs):
        codes = self.backbone(inputs["image"])
        return torch.where(inputs["image"].mean((1, 2, 3))[:, None] > 0.5, math.nan, codes)


class Brightness(Small):
    """What takes a shortcut: nothing but how much light there is, in eight directions nearly."""

    def features(self, inputs):
        light = inputs["image"].mean((1, 2, 3))[:, None]
        return torch.sin(light * torch.arange(1.0, 9.0) * 3)


def images(count=180, classes=3, seed=0):
    """A bar in one of three places, all of them as bright on average."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(count) % max(classes, 1)
    pixels = torch.rand(count, 1, 8, 8, generator=generator) * 0.4
    for place in range(count):
        pixels[place, :, :, 2 * int(label[place])] += 0.5
    pixels = (pixels * 255).to(torch.uint8)
    label = label if classes else None
    train, heldout = (
        Rows(None if label is None else label[part], image=pixels[part]) for part in (slice(0, 120), slice(120, None))
    )
    names = tuple("abc"[:classes]) if classes else None
    return RepresentationData("image", train, heldout, PIXELS, lambda index: f"{index}.png", lambda index: "", names)


def told(folder, name):
    return json.loads((folder / f"{name}.json").read_text())


def measure(encoder, data, folder, config=SMALL, views="noise:0.05", **rest):
    return measure_all(encoder, data, open_views(views, data), config, torch.device("cpu"), folder, **rest)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    torch.manual_seed(0)
    folder, encoder, untrained = tmp_path_factory.mktemp("measured"), Small(), Small()
    data = images()
    before = copy.deepcopy(encoder.state_dict())
    encoder.train()
    state = torch.random.get_rng_state()
    measures = measure(
        encoder, data, folder, untrained=untrained, objective=lambda a, b: float((a - b).square().mean()) + a.shape[1]
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert all(module.training for module in encoder.modules())
    assert all(parameter.grad is None for parameter in encoder.parameters())
    return measures, folder, encoder, data


def test_all_measures_are_described_and_finite(measured):
    measures, _, _, _ = measured
    assert {"rank_me", "lidar", "invariance", "linear_probe.10", "linear_probe", "knn", "retrieval"} <= set(measures)
    assert {"corruption", "corruption_drop", "invariance.rotation", "overfitting_gap", "collapsed"} <= set(measures)
    for reference in ("raw", "pca", "random"):
        assert {f"linear_probe@{reference}", f"invariance@{reference}", f"corruption@{reference}"} <= set(measures)
    assert all(math.isfinite(value) for value in measures.values())
    assert [name for name in measures if described(name) is None] == []
    assert measures["linear_probe@raw"] > 0.95
    assert 4 < measures["train_objective"] < 4.5
    assert measures["train_objective"] != measures["heldout_objective"]


def test_files_hold_what_is_drawn(measured):
    _, folder, _, _ = measured
    assert all((folder / f"{name}.json").exists() for name in FILES)
    rotation = told(folder, "invariance")["transformations"]["rotation"]
    assert len(rotation["strengths"]) == len(rotation["icc"]["codes"]) == len(rotation["retrieval"]["raw"])
    assert len(rotation["accuracy"]["pca"]) == len(rotation["by_direction"]) == len(rotation["strengths"])
    assert not rotation["trained"]
    assert rotation["canonical"] == rotation["by_direction"][-1]
    noise = told(folder, "invariance")["transformations"]["noise"]
    assert (noise["trained"], noise["trained_strength"]) == (True, 0.05)
    assert noise["icc"]["raw"] == sorted(noise["icc"]["raw"], reverse=True)
    layers = told(folder, "spectra")["layers"]
    assert [each["name"] for each in layers][:3] == ["backbone.1", "backbone", "codes"]
    assert len(layers[0]["values"]) == 16
    curve = told(folder, "corruption")["corruptions"]["contrast"]
    assert curve["severities"] == [0, 1, 2, 3, 4, 5]
    assert all(len(values) == 6 for values in curve["accuracy"].values())
    probes = told(folder, "probes")
    assert probes["linear"]["labels"] == [12, 120]
    assert [len(draws) for draws in probes["knn"]["accuracy"]["raw"]] == [2, 1]
    assert probes["length"]["dimensions"] == [1, 2, 4, 8]
    assert set(probes["length"]["accuracy"]) == {"ordered", "unordered", "pca"}
    assert probes["chance"] == pytest.approx(1 / 3)


def test_pictures_and_words(measured):
    folder = measured[1]
    neighbours = told(folder, "neighbours")
    assert len(neighbours["queries"]) == 4
    query = neighbours["queries"][0]
    assert query["name"].endswith(".png")
    assert query["label"] in "abc"
    similarities = [each["similarity"] for each in query["neighbours"]]
    assert len(similarities) == 4
    assert similarities == sorted(similarities, reverse=True)
    assert 0 <= neighbours["chance"] <= 0.5
    directions = told(folder, "directions")["directions"]
    assert [each["rank"] for each in directions] == [1, 2, 3]
    assert sum(each["share"] for each in directions) < 1
    assert sum(share for _, share in directions[0]["responds"]) <= 1
    assert not {each["name"] for each in directions[0]["top"]} & {each["name"] for each in directions[0]["bottom"]}
    for name, columns, rows in (("neighbours", 5, 4), ("directions", 8, 3), ("attribution", 8, 3)):
        with Image.open(folder / f"{name}.png") as picture:
            assert picture.width / picture.height == pytest.approx(columns / rows, rel=0.03)


def test_the_same_again(measured, tmp_path):
    measures, _, encoder, data = measured
    few = RepresentationMeasureConfig(
        train_examples=120,
        heldout_examples=60,
        references=False,
        transformations=False,
        corruptions=False,
        layers=False,
    )
    again = measure(encoder, data, tmp_path, few)
    for name in ("rank_me", "lidar", "invariance", "linear_probe", "knn", "view_retrieval"):
        assert again[name] == measures[name]
    assert not [name for name in again if "@" in name or "rotation" in name or "corruption" in name]


FEW = RepresentationMeasureConfig(
    train_examples=120, heldout_examples=60, transformations=False, corruptions=False, draws=1, shown=2, directions=1
)


def test_a_constant_encoder_is_called_out(tmp_path):
    measures = measure(Constant(), images(), tmp_path, FEW)
    found = told(tmp_path, "findings")
    assert found["answer"] == "Yes, it has collapsed: the encoder gives all examples the same code."
    assert found["findings"][0]["kind"] == "collapsed"
    assert measures["collapsed"] == 1
    assert measures["dead_dimensions"] == 1
    assert "effective_rank" not in measures
    assert "invariance" not in measures
    assert measures["linear_probe"] == pytest.approx(1 / 3)


def test_codes_that_are_not_numbers_are_called_out(tmp_path):
    data = images()
    data.train.inputs["image"][0] = 255
    measures = measure(Broken(), data, tmp_path, FEW, objective=lambda a, b: 1 / 0)
    found = told(tmp_path, "findings")["findings"][0]
    assert (found["severity"], found["kind"]) == ("error", "not_finite")
    assert "of the examples hold NaN or infinity" in found["message"]
    assert measures["collapsed"] == 1
    assert "linear_probe" not in measures
    assert "rank_me@raw" in measures


def test_codes_that_vary_by_rounding_alone_have_collapsed(tmp_path):
    encoder = Constant()
    encoder.features = lambda inputs: Small.features(encoder, inputs) * 1e-4 + 1
    measures = measure(encoder, images(), tmp_path, FEW)
    assert measures["collapsed"] == 1
    assert told(tmp_path, "findings")["findings"][0]["message"].startswith("collapsed: only ")


def test_a_shortcut_is_called_out(tmp_path):
    measure(Brightness(), images(), tmp_path, FEW)
    found = told(tmp_path, "findings")
    assert "shortcut" in [each["kind"] for each in found["findings"]]
    assert found["answer"].startswith("It has not collapsed, but it takes a shortcut: two views agree")


@pytest.mark.parametrize("classes", [0, 1], ids=["no labels", "one class"])
def test_without_classes_to_tell_apart(classes, tmp_path):
    measures = measure(Small(), images(classes=classes), tmp_path, FEW)
    assert not [name for name in measures if name.startswith(("linear_probe", "knn", "corruption", "retrieval"))]
    assert {"rank_me", "invariance", "view_retrieval"} <= set(measures)
    messages = [each["message"] for each in told(tmp_path, "findings")["findings"]]
    assert any("not of two classes" in message for message in messages) == bool(classes)


def test_unlabelled_rows_are_left_out_of_probes(tmp_path):
    data = images()
    data.train.label[::2] = -1
    data.heldout.label[:5] = -1
    measure(Small(), data, tmp_path, FEW)
    assert told(tmp_path, "probes")["linear"]["labels"][-1] == 60


def test_fewer_examples_than_needed(tmp_path):
    data = images()
    tiny = RepresentationMeasureConfig(train_examples=5, heldout_examples=1, layers=False)
    measures = measure(Small(), data, tmp_path, tiny)
    messages = " ".join(each["message"] for each in told(tmp_path, "findings")["findings"])
    assert "1 held-out examples" in messages
    assert "5 training examples for 8 dimensions" in messages
    assert "lidar" not in measures
    with pytest.raises(ValueError, match="two training examples at least, got 1"):
        measure(Small(), data, tmp_path, RepresentationMeasureConfig(train_examples=1))


class OfTable(Encoder):
    def __init__(self):
        super().__init__(nn.Linear(3 + 1, 4), nn.Identity(), COLUMNS)

    def features(self, inputs):
        return self.backbone(torch.cat([inputs["numeric"], (inputs["categorical"] == 2).float()], 1))

    def forward(self, inputs):
        return self.features(inputs)

    def blocks(self):
        return ("backbone",)


def test_a_table_with_missing_values(tmp_path):
    generator = torch.Generator().manual_seed(0)
    numeric, category = torch.randn(90, 3, generator=generator), torch.randint(0, 3, (90, 1), generator=generator)
    missing = torch.cat([torch.zeros(90, 3), category == 0], 1).bool()
    parts = [
        Rows((numeric[part, 0] > 0).long(), numeric=numeric[part], categorical=category[part], missing=missing[part])
        for part in (slice(0, 60), slice(60, None))
    ]
    data = RepresentationData("table", *parts, COLUMNS, str, lambda index: f"row {index}", ("no", "yes"))
    torch.manual_seed(0)
    encoder = OfTable()
    with torch.no_grad():
        encoder.backbone.weight[:] = torch.tensor([[3.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]])
    measures = measure(encoder, data, tmp_path, SMALL, views="noise:0.3")
    assert measures["dead_dimensions"] == 0.25
    assert {"linear_probe", "invariance.marginal", "invariance.missing", "linear_probe@pca"} <= set(measures)
    assert not (tmp_path / "corruption.json").exists()
    found = [dict(each["responds"]) for each in told(tmp_path, "directions")["directions"]]
    assert len(found) == 3  # the fourth dimension does not vary
    for name in ("age", "height", "colour=blue"):
        assert max(abs(each[name]) for each in found) > 0.5
    assert all(abs(each["ink"]) < 1e-4 for each in found)
    assert told(tmp_path, "neighbours")["queries"][0]["text"].startswith("row")
    assert np.isfinite(measures["lidar"])
