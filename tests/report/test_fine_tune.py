"""What the report shows of a fine-tune beside what it shows of any run."""

import base64
import json
import re

import numpy as np
import pytest

from lsdr.report.figures.adapter import adapter_plots
from lsdr.report.figures.losses import loss_plots
from lsdr.report.figures.lr_range import lr_range_plot
from lsdr.report.figures.stability import largest_stable, lr_plot
from lsdr.report.inspected import inspected
from lsdr.report.load import load
from lsdr.report.overtraining import overtraining
from lsdr.report.report import write_report
from lsdr.report.sanity import Check, checks, tally
from lsdr.report.tables import described, medians
from lsdr.runs import append_record, write_json

SANITY = [
    {"check": "vae", "verdict": "ok", "message": "pictures survive", "evidence": {}},
    {"check": "data", "verdict": "warning", "message": "2 left out <b>", "evidence": {}},
    {"check": "network", "verdict": "refused", "message": "predicts nothing", "evidence": {}},
]
RAMP = {
    "lr": [1e-6, 1e-5, 1e-4, 1e-3, 1e-2],
    "loss": [1.0, 0.9, 0.5, 7.0, None],
    "initial_loss": 1.0,
    "suggestion": 1e-5,
    "message": "the loss is smallest at 1.0e-04",
}
OVERTRAINED = {"step": 1200, "kind": "overtraining", "action": "none", "message": "the held-out loss is 3.1% above"}


def _run(folder, **files):
    """A lone run with these JSON files; a list of records goes line by line into the file of that name."""
    append_record(folder / "metrics.jsonl", {"step": 1, "loss": 0.5})
    write_json(folder / "status.json", {"status": "finished", "step": 1, "steps": 1})
    for name, content in files.items():
        write_json(folder / f"{name}.json", content)
    return folder


def _visible(page):
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"<(script|style).*?</\1>", "", text, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", text).replace("\u202f", " ").split())


def _values(drawn):
    """Numbers as Plotly packs them."""
    return np.frombuffer(base64.b64decode(drawn["bdata"]), np.float32).tolist()


def test_the_page_of_a_fine_tune(tmp_path):
    layer = {"name": "to_q", "delta": {"relative": 0.25, "new_directions": 0}}
    _run(tmp_path, sanity=SANITY, inspection={"layers": [layer], "findings": []}, lr_range=RAMP,
         measures={"heldout_loss": 0.4, "base_heldout_loss": 0.5})  # fmt: skip
    (tmp_path / "inspection.html").write_text("")
    append_record(tmp_path / "events.jsonl", OVERTRAINED)
    page = write_report(tmp_path)
    source, text = page.read_text(encoding="utf-8").split("<script>")[0], _visible(page)  # without Plotly's code
    assert re.findall(r'<a href="([^"]*)"', source) == ["inspection.html"]
    assert '<span class="chip warned"><span aria-hidden="true">!</span> warning</span>' in source
    assert '<span class="chip worse"><span aria-hidden="true">✗</span> refused</span>' in source
    for words in (
        "! overtraining at step 1200 the held-out loss is 3.1% above.", "Of 3 checks, 1 warned and 1 refused.",
        "vae ✓ ok pictures survive", "2 left out &lt;b&gt;", "Held-out loss of the base 0.500",
        "Of 1 layer none stands out", "A ramp: one short training on a copy", "The guard caught nothing",
    ):  # fmt: skip
        assert words in text, words
    assert text.index("! overtraining") < text.index("Checks before the first step") < text.index("Training curves")
    assert 'id="plot-lr-range"' in source
    assert 'id="plot-lr-grid"' not in source


def test_a_run_without_these_files_has_none_of_it(tmp_path):
    page = write_report(_run(tmp_path))
    text = _visible(page)
    assert not any(words in text for words in ("Checks before", "Inspection", "overtraining", "LoRA", "range test"))
    assert "<a " not in page.read_text(encoding="utf-8").split("<script>")[0]


@pytest.mark.parametrize("content", ["{", "3", '{"check": 1}', '[1, {"verdict": ["ok"]}]'])
def test_checks_that_are_not_what_they_should_be(tmp_path, content):
    (_run(tmp_path) / "sanity.json").write_text(content)
    notes = []
    found = checks(load(tmp_path), notes)
    assert [(each.check, each.symbol) for each in found] == ([("", "?")] if content.startswith("[") else [])
    assert bool(notes) == (content == "{")


def test_checks_in_short():
    ok, warned = (Check("", verdict, "", "", "") for verdict in ("ok", "warning"))
    assert tally([ok, warned, warned]) == "Of 3 checks, 2 warned and none refused."
    assert tally([ok, ok]) == "All 2 checks passed."


def test_warnings_of_a_comparison_name_their_run(tmp_path, write_experiment):
    write_experiment(tmp_path, seeds=1)
    append_record(tmp_path / "clip" / "seed=0" / "events.jsonl", OVERTRAINED)
    assert overtraining(load(tmp_path)) == ["clip, seed 0: at step 1200 the held-out loss is 3.1% above."]


def test_the_inspection_in_one_sentence(tmp_path):
    layers = [
        {"name": "to_q", "delta": {"relative": 0.02, "new_directions": 2}},
        {"name": "to_k", "delta": {"relative": 0.03, "new_directions": 1}},
        {"name": "to_v", "delta": None},
    ]
    findings = [
        {"layer": "to_v", "severity": "info", "text": "a smaller rank would do"},
        {"layer": "to_q", "severity": "warning", "text": "2 intruders."},
    ]
    _run(tmp_path, inspection={"layers": layers, "findings": findings})
    assert inspected(load(tmp_path), []) is None  # there is nothing to link to
    (tmp_path / "inspection.html").write_text("")
    assert inspected(load(tmp_path), []).sentence.replace("\u202f", " ") == (
        "1 warning and 1 remark on 3 layers, the gravest “to_q: 2 intruders”; the layer that changed most is to_k, by "
        "3 % of its norm; 3 directions in 2 layers new to the base."
    )
    (tmp_path / "inspection.json").unlink()
    assert inspected(load(tmp_path), []).sentence == ""


def test_norms_of_an_adapter_are_the_largest_of_the_newest_values(tmp_path):
    _run(tmp_path)
    for step, values in ((0, {"a": 0.0, "b": 0.0}), (25, {"a": 2.0}), (50, {"b": 1.0}), (75, {"a": 0.5})):
        seen = {f"lora/{layer}/key_norm": value for layer, value in values.items()}
        append_record(tmp_path / "monitor.jsonl", {"step": step, **seen, "weights/a/key_norm": 9.0})
    append_record(tmp_path / "monitor.jsonl", {"step": 100, "lora/a/nonfinite": 3, "lora/a/sigma_max": 7.0})
    (plot,) = adapter_plots(load(tmp_path))  # sigma_max was seen once
    (trace,) = json.loads(plot.json)["data"]
    assert plot.name == "adapter-key-norm"
    assert _values(trace["x"]) == [0, 25, 50, 75]
    assert _values(trace["y"]) == [0, 2, 2, 1]


def test_a_ramp_is_no_grid(tmp_path):
    grid = {"lr": RAMP["lr"], "loss": RAMP["loss"], "initial_loss": 1.0}
    results = load(_run(tmp_path / "grid", curves={"lr_grid": grid}))
    assert lr_plot(results) is not None
    assert lr_range_plot(results) is None
    results = load(_run(tmp_path, lr_range=RAMP))
    assert lr_plot(results) is None
    assert not largest_stable(results.runs[0]) > 0
    plot = lr_range_plot(results)
    figure = json.loads(plot.json)
    assert _values(figure["data"][0]["y"]) == pytest.approx([1, 0.9, 0.5, 7, np.nan], nan_ok=True)
    assert {shape.get("y0") for shape in figure["layout"]["shapes"]} >= {1.0}
    assert {shape.get("x0") for shape in figure["layout"]["shapes"]} >= {1e-5}
    assert plot.caption.endswith("It says: the loss is smallest at 1.0e-04.")


@pytest.mark.parametrize("broken", [{"suggestion": None, "initial_loss": None}, {"lr": [0.0] * 5}, {"loss": "x"}])
def test_a_ramp_that_saw_nothing(tmp_path, broken):
    plot = lr_range_plot(load(_run(tmp_path, lr_range=RAMP | broken)))
    assert (plot is None) == ("suggestion" not in broken)
    assert plot is None or "shapes" not in json.loads(plot.json)["layout"]


def test_measures_have_names_in_words(tmp_path):
    measured = {"my_own_score": 3.0, "heldout_loss": 0.4, "base_heldout_loss": 0.5, "base_of_mine": 1.0}
    results = load(_run(tmp_path, measures=measured))
    labels = [label for label, _, _ in medians(results)]
    assert labels == ["Held-out loss", "Held-out loss of the base", "My own score", "Base of mine"]
    assert "measured before the first step" in dict(described(results, []))["Held-out loss of the base"]


@pytest.mark.parametrize(("evaluations", "mode"), [(1, "lines+markers"), (2, "lines")])
def test_a_curve_of_one_point_can_be_seen(tmp_path, evaluations, mode):
    _run(tmp_path)
    for step in range(evaluations):
        append_record(tmp_path / "evaluations.jsonl", {"step": step, "seconds": 1.0, "heldout_loss": 1.1})
    plot = next(plot for plot in loss_plots(load(tmp_path)) if plot.name == "heldout-steps")
    assert json.loads(plot.json)["data"][0]["mode"] == mode
