"""Whole runs, tiny ones, over modalities, models and objectives."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import load_file

from lsdr import runs
from lsdr.regularizers.spectral_decorrelation import SpectralDecorrelation
from lsdr.representation.build import build_encoder, load
from lsdr.representation.codes import encode
from lsdr.representation.load_run import load_run
from lsdr.representation.measures.catalogue import described
from lsdr.representation.run import run

_spec = importlib.util.spec_from_file_location("small", Path(__file__).with_name("small.py"))
small = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(small)


SETTINGS = small.config(training={"sample_every": 4}, measure=replace(small.TINY, references=True, layers=True))


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    AcceleratorState._reset_state(reset_partial_state=True)
    folder = tmp_path_factory.mktemp("digits")
    outcome = run(SETTINGS, (SpectralDecorrelation(layers="backbone", weight=0.1),), folder)
    assert outcome.status == "finished"
    return folder


def test_a_run_leaves_what_is_needed_to_judge_and_to_use_it(finished):
    measures = runs.read_json(finished / "measures.json")
    assert [name for name in measures if described(name) is None] == []
    assert {"linear_probe", "invariance", "rank_me", "train_objective", "linear_probe@random", "linear_probe@raw"} <= (
        measures.keys()
    )
    assert (measures["diverged"], measures["gradient_spikes"]) == (0, 0)
    data = runs.read_json(finished / "data.json")
    assert (data["count"], data["heldout"], data["modality"], data["classes"]) == (90, 10, "image", 10)
    for name in ("data.png", "views.png"):
        with Image.open(finished / name) as picture:
            assert picture.size[0] > 100
    facts = runs.read_json(finished / "encoder.json")
    tensors = load_file(finished / "encoder.safetensors")
    backbone = sum(each.numel() for name, each in tensors.items() if name.startswith("backbone"))
    assert facts["parameters"]["backbone"] == backbone - 2  # mean and deviation of the data are buffers


def test_records_hold_the_objective_term_by_term_and_how_far_it_has_collapsed(finished):
    records = runs.read_records(finished / "metrics.jsonl")
    assert len(records) == 8
    for record in records:
        for term in ("", "/invariance", "/variance", "/covariance"):
            assert record[f"SpectralObjective/projector{term}"] >= 0
        whole = record["SpectralObjective/projector"] + 0.1 * record["SpectralDecorrelation/backbone"]
        assert record["penalty"] == pytest.approx(whole, rel=1e-4)
        assert 0 < record["z_participation_ratio"] <= 12
        assert record["z_std"] > 0
        assert -1 <= record["invariance"] <= 1
    evaluations = runs.read_records(finished / "evaluations.jsonl")
    assert [record["step"] for record in evaluations] == [4, 8]
    assert all(record["heldout_objective"] > 0 for record in evaluations)
    features = [each for each in runs.read_records(finished / "spectra.jsonl") if each["kind"] == "features"]
    assert [each["step"] for each in features] == [0, 4, 8]
    assert all("backbone" in each["layers"] and len(each["layers"]) >= 3 for each in features)


def test_a_run_is_loaded_with_the_averaged_weights_and_the_order_of_its_codes(finished):
    state = torch.random.get_rng_state()
    trained = load_run(finished)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (trained.step, trained.config.data, trained.config.training.betas) == (8, "digits", (0.9, 0.99))
    assert trained.config == SETTINGS
    own = trained.encoder.state_dict()
    averaged, last = (load_file(finished / "snapshots" / "final" / f"{name}.safetensors") for name in ("ema", "model"))
    assert all(torch.equal(own[name], averaged[name]) for name in averaged)
    assert not torch.equal(own["backbone.stem.weight"], last["backbone.stem.weight"])
    assert not trained.encoder.training
    data = load(trained.config)
    codes = encode(trained.encoder, data.heldout)
    assert trained.fields == data.fields
    assert trained.ordered is not None
    assert trained.ordered(codes, 3).shape == (10, 3)


def test_a_checkpoint_is_loaded_where_there_is_no_end_yet(finished, tmp_path):
    with pytest.raises(ValueError, match="no run of `lsdr train representation`"):
        load_run(tmp_path)
    (tmp_path / "encoder.json").write_bytes((finished / "encoder.json").read_bytes())
    with pytest.raises(ValueError, match="holds no weights yet"):
        load_run(tmp_path)
    target = tmp_path / "checkpoints" / "step-00000006"
    target.mkdir(parents=True)
    for each in (finished / "checkpoints" / "step-00000006").glob("*"):
        (target / each.name).write_bytes(each.read_bytes())
    trained = load_run(tmp_path)
    assert (trained.step, trained.ordered) == (6, None)


def test_a_collapse_is_called_out_in_events_and_findings(tmp_path, monkeypatch):
    def planted(config, fields, dropout=0.0):
        encoder = build_encoder(config, fields, dropout=dropout)
        torch.nn.init.zeros_(encoder.backbone.last[2].weight)
        return encoder

    monkeypatch.setattr("lsdr.representation.build.build_encoder", planted)
    settings = small.config(weight=0.0, training={"steps": 4, "evaluate_every": 2})  # nothing would help it up
    assert run(settings, (), tmp_path).status == "finished"
    events = [each for each in runs.read_records(tmp_path / "events.jsonl") if each["kind"] == "collapse"]
    assert len(events) == 1
    assert "collapsed" in events[0]["message"]
    assert runs.read_json(tmp_path / "measures.json")["collapsed"] == 1
    assert load_run(tmp_path).ordered is None


@pytest.mark.parametrize(
    "options",
    [
        {"data": "breast-cancer", "objective": "barlow_twins", "robust": "trimmed", "contaminate": 0.1},
        {"data": "texts", "objective": "sim_clr", "length": 8, "vocabulary": 300},
        {"objective": "sigreg", "projector": 0, "training": {"accumulate": 2, "precision": "bf16"}},
    ],
    ids=lambda options: " ".join(map(str, options.values())),
)
def test_every_kind_of_run_ends_with_measures(tmp_path, options):
    if options.get("data") == "texts":
        options = {**options, "data": small.texts(tmp_path / "texts")}
    training = {"steps": 2, **options.pop("training", {})}
    assert run(small.config(training=training, **options), (), tmp_path / "run").status == "finished"
    measures = runs.read_json(tmp_path / "run" / "measures.json")
    assert [name for name in measures if described(name) is None] == []
    assert measures["invariance"] is not None
    assert ("linear_probe" in measures) == (options.get("data", "") != str(tmp_path / "texts"))


def test_a_diverged_run_has_a_result(tmp_path):
    outcome = run(small.config(training={"lr": 1e30}), (), tmp_path)
    assert outcome.status == "diverged"
    assert runs.read_json(tmp_path / "measures.json") == {"diverged": 1.0} | {
        name: value for name, value in runs.read_json(tmp_path / "measures.json").items() if name != "diverged"
    }


def test_a_faster_method_is_measured_at_equal_time_too(tmp_path):
    assert run(small.config(training={"steps": 3}), (), tmp_path, reference_seconds=1e-6).status == "finished"
    measures = runs.read_json(tmp_path / "measures.json")
    assert {"invariance", "invariance@equal_time"} <= measures.keys()
    assert "step_seconds@equal_time" not in measures


def test_a_crash_is_recorded_and_raised(tmp_path):
    class Broken:
        def attach(self, model):
            raise RuntimeError("broken on purpose")

        def project_(self, model):
            pass

    with pytest.raises(RuntimeError, match="on purpose"):
        run(small.config(), (Broken(),), tmp_path)
    status = runs.read_json(tmp_path / "status.json")
    assert (status["status"], status["message"]) == ("crashed", "RuntimeError: broken on purpose")
    assert "Traceback" in (tmp_path / "crash.txt").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit": 21}, "measuring needs 20"),
        ({"model": "mlp-tiny"}, "is for table data, these are image"),
        ({"model": "conv-tny"}, "did you mean conv-tiny"),
        ({"views": "token_dropout"}, "token_dropout"),
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(value),
)
def test_what_does_not_fit_is_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        run(small.config(**options), (), tmp_path)


def test_a_batch_is_no_larger_than_the_examples_are_many(tmp_path):
    settings = small.config(data="wine", training={"batch_size": 256, "steps": 1})
    with pytest.warns(RuntimeWarning, match="batches of 90, not 256"):
        assert run(settings, (), tmp_path).status == "finished"
    assert load_run(tmp_path).config.training.batch_size == 90


def test_large_images_are_made_smaller_by_the_first_convolution_and_heads_divide_the_code(tmp_path):
    settings = small.config(data="patches", size=64, limit=60, training={"batch_size": 10})
    encoder = build_encoder(settings, load(settings).fields)
    assert encoder.backbone.settings["patch"] == 2
    texts = small.config(data=small.texts(tmp_path / "texts"), length=8, vocabulary=300, code=7)
    with pytest.raises(ValueError, match="cannot be cut into the 2 heads"):
        build_encoder(texts, load(texts).fields)
