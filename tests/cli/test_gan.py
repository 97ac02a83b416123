"""`lsdr train gan` and `lsdr compare gan`."""

from dataclasses import replace

import pytest

from lsdr import runs
from lsdr.cli.gan_options import refuse_contradictions
from lsdr.cli.gan_view import outcome
from lsdr.cli.main import main
from lsdr.experiments.method import Method
from lsdr.experiments.methods import resolve
from lsdr.gan.config import GanConfig

SMALL = ["--data", "ring", "--examples", "400", "--batch-size", "32", "--steps", "6", "--log-every", "2"]
SMALL += ["--evaluate-every", "3", "--sample-every", "0", "--monitor-every", "0", "--checkpoint-every", "3"]
SMALL += ["--samples", "50", "--train-examples", "50", "--heldout-examples", "50", "--paths", "2", "--trackers"]


def lsdr(*words):
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    return end.value.code


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of the combined method, and what was printed."""
    out = tmp_path_factory.mktemp("gan") / "run"
    with pytest.MonkeyPatch.context() as patch:
        lines = []
        patch.setattr("builtins.print", lambda *words, **_: lines.append(" ".join(map(str, words))))
        assert lsdr("train", "gan", *SMALL, "--method", "spectral_noise@2", "--out", out) == 0
    return out, "\n".join(lines)


def test_a_run_trains_with_its_method_and_answers(trained):
    out, text = trained
    config = runs.read_json(out / "config.json")
    assert config["method"] == "spectral_noise@2"
    assert (config["loss"], config["discriminator_noise"], config["r1"]) == ("non_saturating", True, 0)
    assert "finished at step 6" in text
    assert "Modes captured (of 8)" in text
    assert "Is this mode collapse? " in text
    assert "a perfect sampler" in text
    assert f"report: {out / 'report.html'}" in text
    assert (out / "report.html").exists()
    assert (out / "generator.safetensors").exists()


def test_a_bound_holds_in_what_was_trained(trained):
    from safetensors.torch import load_file
    from torch.linalg import matrix_norm

    weights = load_file(trained[0] / "model.safetensors")
    gains = [float(matrix_norm(each, 2)) for name, each in weights.items() if each.ndim == 2 and "noise" not in name]
    assert gains
    assert max(gains) <= 2 * 1.001


def test_repeated_and_resumed(trained, capsys):
    words = ["train", "gan", *SMALL, "--out", trained[0]]
    assert lsdr(*words, "--method", "spectral_noise@2", "--resume") == 0
    assert "finished already" in capsys.readouterr().out
    assert lsdr(*words, "--method", "spectral_noise@2") == 2
    assert "--resume" in capsys.readouterr().err
    assert lsdr(*words, "--method", "baseline", "--resume") == 2
    assert "discriminator_noise was True, is False" in capsys.readouterr().err


def test_a_comparison_end_to_end(tmp_path, capsys):
    out = tmp_path / "compared"
    words = ["--methods", "baseline,packing", "--seeds", "1", "--out", out]
    assert lsdr("compare", "gan", *SMALL, *words) == 0
    experiment = runs.read_json(out / "experiment.json")
    assert experiment["task"] == "gan"
    assert {method["name"]: method["overrides"]["packing"] for method in experiment["methods"]} == {
        "baseline": 1,
        "packing": 2,
    }
    summary = runs.read_json(out / "summary.json")
    assert [seed["status"] for method in summary["methods"] for seed in method["seeds"]] == ["finished", "finished"]
    measured = {comparison["measure"] for comparison in summary["comparisons"]}
    assert {"modes", "high_quality", "precision", "recall", "coverage", "diverged", "step_seconds_ratio"} <= measured
    assert "packing: " in capsys.readouterr().out
    assert (out / "report.html").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["train", "gan", "--method", "baselin"], "close names: baseline"),
        (["train", "gan", "--method", "decorrelation"], "'decorrelation' is a method of diffusion; those of gan are"),
        (["train", "gan", "--r1", "5", "--method", "hinge"], "method hinge sets r1=0.0, so --r1 5.0 would not count"),
        (["train", "gan", "--batch-size", "31", "--method", "packing"], "packs of 2"),
        (["compare", "gan", "--methods", "baseline,fixup", "--model", "mlp"], "method fixup: model 'mlp' can have"),
        (["compare", "gan", "--methods", "residual_spectral", "--model", "mlp"], "method residual_spectral: no layer"),
        (["compare", "gan", "--methods", "baseline", "--seeds", "0"], "seeds must be at least 1"),
        (["compare", "gan", "--loss", "hinge", "--methods", "baseline"], "--loss hinge would not count"),
    ],
)
def test_wrong_use_is_a_sentence(tmp_path, capsys, words, expected):
    assert lsdr(*words, "--out", tmp_path / "run", "--examples", "400") == 2
    assert expected in capsys.readouterr().err
    assert not list(tmp_path.rglob("checkpoints"))


def test_options_that_count_are_not_refused():
    clipped = GanConfig(training=replace(GanConfig().training, clip=5.0))
    refuse_contradictions(GanConfig(r1=5.0), [resolve("options", task="gan")])
    refuse_contradictions(GanConfig(loss="hinge"), [resolve("hinge", task="gan")])
    refuse_contradictions(clipped, [Method("mine", "", overrides={"clip": 1.0})])
    refuse_contradictions(GanConfig(noise_target=0.3), [resolve("adaptive_noise", task="gan")])
    refuse_contradictions(clipped, [resolve("clip@5", task="gan"), resolve("hinge", task="gan")])
    with pytest.raises(ValueError, match=r"method clip sets clip=1.0, so --clip 5\.0"):
        refuse_contradictions(clipped, [resolve("clip", task="gan")])
    with pytest.raises(ValueError, match="method baseline sets loss=non_saturating, so --loss hinge"):
        refuse_contradictions(GanConfig(loss="hinge"), [resolve(name, task="gan") for name in ("hinge", "baseline")])


@pytest.fixture
def judged(tmp_path):
    """Write a run's files; return what is said of it."""

    def say(measures, curves, data):
        for name, value in (("measures", measures), ("curves", curves), ("data", data)):
            runs.write_json(tmp_path / f"{name}.json", value)
        return outcome(tmp_path)

    return say


def test_collapse_and_its_absence_in_words(judged):
    perfect = {"modes": {"mean": 4.0, "sd": 0.0}, "reverse_kl": {"mean": 0.003, "sd": 0.002}}
    perfect["high_quality"] = {"mean": 0.989, "sd": 0.005}
    measures = {"modes": 4.0, "reverse_kl": 0.004, "high_quality": 0.98, "precision": None}
    text = judged(measures, {"modes": {"counts": [250] * 4, "samples": 1000}, "perfect": perfect}, {"mixture": {}})
    assert "Is this mode collapse? No sign" in text
    rows = {line.split("  ")[0]: line.split()[-2:] for line in text.splitlines() if "  " in line}
    assert rows["Modes captured (of 4)"] == ["4", "4"]
    assert text.splitlines()[2].split()[-4:] == ["98.0", "%", "98.9", "%"]
    assert rows["Reverse KL"] == ["0.004", "0.003"]
    counts = {"modes": {"counts": [990, 10, 0, 0], "samples": 1000}, "perfect": perfect}
    assert "Yes, this is mode collapse" in judged(
        {**measures, "modes": 2.0, "reverse_kl": 1.3}, counts, {"mixture": {}}
    )


def test_images_without_classes_have_other_measures(judged):
    perfect = {"precision": {"mean": 0.8, "sd": 0.02}, "coverage": {"mean": 0.9, "sd": 0.02}}
    text = judged({"precision": 0.7, "coverage": 0.85, "fid": 1.25, "modes": None}, {"perfect": perfect}, {})
    assert "Modes" not in text
    assert [line.split()[-1] for line in text.splitlines() if line.startswith("FID")] == ["1.25"]
    assert [line.split() for line in text.splitlines() if line.startswith("Precision")] == [
        ["Precision", "70.0", "%", "80.0", "%"]
    ]


def test_a_run_that_did_not_come_to_samples_is_not_called_healthy(judged):
    text = judged({"diverged": 1.0, "step_seconds": 0.01}, {}, {})
    assert "did not come to samples" in text
    assert "No sign" not in text


def test_help_names_every_method(capsys):
    from lsdr.experiments.gan_methods import GAN_METHODS

    assert lsdr("compare", "gan", "--help") == 0
    words = capsys.readouterr().out.replace(",", " ").split()
    assert set(GAN_METHODS) - {"options"} <= set(words)
    assert "`options`" in words
