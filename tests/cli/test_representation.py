"""`lsdr train representation` and `lsdr compare representation`."""

import re

import pytest

from lsdr import runs
from lsdr.cli.main import main
from lsdr.cli.representation_options import refuse_contradictions
from lsdr.cli.representation_view import outcome
from lsdr.experiments.method import Method
from lsdr.experiments.methods import resolve
from lsdr.representation.config import RepresentationConfig
from lsdr.representation.views.catalogue import TRANSFORMATIONS

SMALL = ["--data", "wine", "--batch-size", "32", "--steps", "4", "--log-every", "2", "--evaluate-every", "2"]
SMALL += ["--monitor-every", "0", "--checkpoint-every", "2", "--trackers", "--train-examples", "80"]
SMALL += ["--heldout-examples", "18", "--view-examples", "18", "--draws", "2"]


def lsdr(*words):
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    return end.value.code


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of a method, and what was printed."""
    out = tmp_path_factory.mktemp("codes") / "run"
    with pytest.MonkeyPatch.context() as patch:
        lines = []
        patch.setattr("builtins.print", lambda *words, **_: lines.append(" ".join(map(str, words))))
        assert lsdr("train", "representation", *SMALL, "--method", "barlow_twins@2", "--out", out) == 0
    return out, "\n".join(lines)


def test_a_run_trains_with_its_method_and_answers(trained):
    out, text = trained
    config = runs.read_json(out / "config.json")
    assert (config["method"], config["objective"], config["weight"]) == ("barlow_twins@2", "barlow_twins", 2)
    columns = runs.read_records(out / "metrics.jsonl")[-1]
    assert {name.split("/")[-1] for name in columns if name.count("/") == 2} == {"invariance", "redundancy"}
    assert "finished at step 4" in text
    assert re.search(r"^ +codes +raw inputs +PCA +untrained encoder$", text, flags=re.MULTILINE)
    assert re.search(r"^Linear probe, all labels( +[\d.]+\s%){4}$", text, flags=re.MULTILINE)
    assert "How good are the codes? With " in text
    assert "How invariant are they? The codes are " in text
    assert "Have they collapsed? " in text
    assert text.endswith(f"report: {out / 'report.html'}")
    assert (out / "report.html").exists()


def test_the_numbers_told_are_those_of_the_files(trained):
    out, text = trained
    measures = runs.read_json(out / "measures.json")
    row = re.search(r"^Linear probe, all labels(.*)$", text, flags=re.MULTILINE)[1]
    values = [float(each) / 100 for each in re.findall(r"([\d.]+)\s%", row)]
    names = ("linear_probe", "linear_probe@raw", "linear_probe@pca", "linear_probe@random")
    assert values == pytest.approx([measures[name] for name in names], abs=1e-3)


def test_repeated_and_resumed(trained, capsys):
    words = ["train", "representation", *SMALL, "--out", trained[0]]
    assert lsdr(*words, "--method", "barlow_twins@2", "--resume") == 0
    assert "finished already" in capsys.readouterr().out
    assert lsdr(*words, "--method", "barlow_twins@2") == 2
    assert "--resume" in capsys.readouterr().err
    assert lsdr(*words, "--method", "sigreg", "--resume") == 2
    assert "objective was 'barlow_twins', is 'sigreg'" in capsys.readouterr().err


def test_a_comparison_end_to_end(tmp_path, capsys):
    out = tmp_path / "compared"
    words = [
        "--methods",
        "baseline,layer_wise",
        "--seeds",
        "1",
        "--jobs",
        "1",
        "--no-transformations",
        "--no-references",
    ]
    assert lsdr("compare", "representation", *SMALL, *words, "--out", out) == 0
    experiment = runs.read_json(out / "experiment.json")
    assert experiment["task"] == "representation"
    assert experiment["data"]["modality"] == "table"
    summary = runs.read_json(out / "summary.json")
    assert [seed["status"] for method in summary["methods"] for seed in method["seeds"]] == ["finished", "finished"]
    measured = {comparison["measure"] for comparison in summary["comparisons"]}
    assert {"linear_probe.1", "linear_probe", "knn", "invariance", "lidar", "step_seconds_ratio"} <= measured
    record = runs.read_records(out / "layer_wise" / "seed=0" / "metrics.jsonl")[-1]
    layers = {name.split("/")[1] for name in record if name.count("/") == 2}
    assert "projector" in layers
    assert any(name.startswith("backbone") for name in layers)
    assert "layer_wise: " in capsys.readouterr().out
    assert "linear probe" in (out / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["train", "representation", "--method", "baselin"], "close names: baseline"),
        (["train", "representation", "--method", "packing"], "'packing' is a method of gan; those of representation"),
        (["train", "representation", "--robust", "huber", "--method", "sigreg"], "--robust huber would not count"),
        (["train", "representation", "--data", "no/such"], "no/such"),
        (["train", "representation", "--data", "wine", "--batch-size", "32", "--views", "rotation:30"], "rotation"),
        (["train", "representation", "--objective", "sim_clr", "--accumulate", "2"], "micro-batches"),
        (["compare", "representation", "--data", "wine", "--methods", "baseline,sim_clr", "--model", "conv-tiny"],
         "method baseline: model 'conv-tiny' is for image data"),
        (["compare", "representation", "--methods", "baseline", "--seeds", "0"], "seeds must be at least 1"),
    ],
)  # fmt: skip
def test_wrong_use_is_a_sentence(tmp_path, capsys, words, expected):
    try:
        assert lsdr(*words, "--out", tmp_path / "run") == 2
    finally:
        told = capsys.readouterr()
    assert expected in told.err
    assert "Traceback" not in told.err
    assert not list(tmp_path.rglob("checkpoints"))


def test_options_that_count_are_not_refused():
    refuse_contradictions(RepresentationConfig(robust="huber"), [resolve("options", task="representation")])
    refuse_contradictions(RepresentationConfig(robust="huber"), [resolve("huber", task="representation")])
    refuse_contradictions(RepresentationConfig(weight=3.0), [resolve("sigreg@3", task="representation")])
    refuse_contradictions(RepresentationConfig(weight=3.0), [resolve("layer_wise", task="representation")])
    refuse_contradictions(RepresentationConfig(robust="huber"), [Method("mine", "", overrides={"lr": 1e-4})])
    with pytest.raises(ValueError, match="method baseline sets objective=vicreg, so --objective sigreg"):
        refuse_contradictions(RepresentationConfig(objective="sigreg"), [resolve("baseline", task="representation")])


def test_a_run_without_measures_is_not_praised(tmp_path):
    runs.write_json(tmp_path / "config.json", {"views": "default", "projector": None, "method": "baseline"})
    runs.write_json(tmp_path / "status.json", {"status": "diverged", "step": 3, "steps": 400})
    assert outcome(tmp_path) == "Nothing could be measured of the codes: training ended before its last step."


def test_help_names_every_method_and_every_transformation(capsys):
    from lsdr.experiments.representation_methods import REPRESENTATION_METHODS

    assert lsdr("compare", "representation", "--help") == 0
    words = capsys.readouterr().out.replace(",", " ").split()
    assert set(REPRESENTATION_METHODS) - {"options"} <= set(words)
    assert "`options`" in words
    assert lsdr("train", "representation", "--help") == 0
    words = {word.split(":")[0] for word in capsys.readouterr().out.split()}
    assert {name for kinds in TRANSFORMATIONS.values() for name in kinds} <= words
