"""Verdicts and cost as they are worded."""

import math

import numpy as np
import pytest

from lsdr.report.load import load
from lsdr.report.verdicts import Verdict, cost_ratio, verdicts
from lsdr.report.words import caution, comparisons_note, findings
from lsdr.runs import read_json, write_json


def _verdict(**changes):
    values = {
        "method": "m",
        "measure": "fid",
        "label": "FID",
        "hint": "",
        "equal_time": False,
        "baseline": 2.0,
        "value": 1.0,
        "effect": -1.0,
        "low": -1.5,
        "high": -0.5,
        "verdict": "better",
        "pairs": 5,
        "reason": "",
        "seeds_needed": math.nan,
        "primary": False,
    }
    return Verdict(**{**values, **changes})


def test_relative_effect_and_interval():
    row = _verdict()
    assert row.change.replace("\u202f", " ") == "−50 %"
    assert row.change_interval.replace("\u202f", " ") == "−75 % to −25 %"
    assert row.absolute == "−1 (−1.50 to −0.500)"


@pytest.mark.parametrize(("baseline", "value"), [(-0.01, -0.02), (0.0, 1.0), (0.1, -0.1), (math.nan, 1.0)])
def test_no_per_cent_where_they_mean_nothing(baseline, value):
    row = _verdict(baseline=baseline, value=value)
    assert row.change == "−1"
    assert row.change_interval == "−1.50 to −0.500"
    assert row.absolute == ""


@pytest.mark.parametrize(
    ("verdict", "symbol", "tone", "shown"),
    [
        ("better", "✓", "better", True),
        ("worse", "✗", "worse", True),
        ("higher", "↑", "neutral", True),
        ("lower, with less diversity", "↓", "neutral", True),
        ("no difference shown", "–", "none", False),
    ],
)
def test_verdicts_are_told_apart_without_colour(verdict, symbol, tone, shown):
    row = _verdict(verdict=verdict)
    assert (row.symbol, row.tone, row.shown) == (symbol, tone, shown)


def test_footnotes():
    assert _verdict(reason="the interval over 5 paired seeds excludes zero").footnote == ""
    withheld = _verdict(verdict="no difference shown", reason="2 runs of m diverged")
    assert withheld.footnote == "2 runs of m diverged"
    hedged = _verdict(verdict="lower", reason="excludes zero; diversity was not measured")
    assert hedged.footnote == "excludes zero; diversity was not measured"
    open_question = _verdict(verdict="no difference shown", low=-2.0, high=1.0, seeds_needed=41.0)
    assert open_question.footnote == "it would take about 41 seeds to show this effect"


def test_order_ratios_and_rates(tmp_path, write_experiment):
    write_experiment(tmp_path, seeds=5)
    summary = read_json(tmp_path / "summary.json")
    summary["comparisons"].reverse()
    write_json(tmp_path / "summary.json", summary)
    rows = verdicts(load(tmp_path))
    assert [row.method for row in rows] == sorted(row.method for row in rows)
    assert rows[0].primary
    assert not any(row.measure.endswith("_ratio") for row in rows)
    assert {row.equal_time for row in rows if row.primary} == {False, True}


def test_cost_is_paired_by_seed_and_falls_back_on_the_record(tmp_path, write_experiment):
    write_experiment(tmp_path, seeds=5)
    results = load(tmp_path)
    baseline, clip, decorrelation = results.methods
    assert math.isclose(cost_ratio(results, decorrelation, "memory_mb"), 892 / 812)
    assert cost_ratio(results, baseline, "step_seconds") == 1.0
    for run in [*baseline.runs, *clip.runs]:
        run.measures.clear()
    assert math.isclose(cost_ratio(results, clip, "memory_mb"), 852 / 812)
    assert 0.95 < cost_ratio(results, clip, "step_seconds") < 1.1
    for run in clip.runs:
        run.metrics["memory_mb"] = np.empty(0)
    assert math.isnan(cost_ratio(results, clip, "memory_mb"))


def test_baseline_is_what_the_summary_compares_with(tmp_path, write_experiment):
    write_experiment(tmp_path, methods={"plain": 1.0, "baseline": 0.9}, seeds=1)
    assert load(tmp_path).baseline == "plain"
    (tmp_path / "summary.json").unlink()
    assert load(tmp_path).baseline == "baseline"


@pytest.mark.parametrize(
    ("chance", "words"),
    [(2.6, "about 2.6 would seem"), (0, "none with a verdict"), (None, "one in twenty would seem")],
)
def test_many_comparisons_are_owned_up_to(tmp_path, write_experiment, chance, words):
    write_experiment(tmp_path, seeds=1)
    summary = read_json(tmp_path / "summary.json")
    write_json(tmp_path / "summary.json", {**summary, "chance_verdicts": chance})
    results = load(tmp_path)
    assert words in comparisons_note(results, verdicts(results))


def test_a_comparison_without_pairs_is_said_to_be_none(tmp_path, write_experiment):
    write_experiment(tmp_path, seeds=1)
    summary = read_json(tmp_path / "summary.json")
    nothing = {
        "method": "clip",
        "against": "baseline",
        "measure": "heldout_loss",
        "effect": None,
        "low": None,
        "high": None,
        "verdict": "no difference shown",
        "pairs": 0,
        "baseline": None,
    }
    summary["comparisons"] = [nothing]
    write_json(tmp_path / "summary.json", summary)
    results = load(tmp_path)
    rows = verdicts(results)
    assert "With 1 seed nothing can be shown: one seed has no spread." in caution(results, rows)
    (clip,) = [finding for finding in findings(results, rows) if finding.method == "clip"]
    assert clip.sentences[0].text == "Held-out loss could not be compared."
