"""What is said in words of measures, and what is noticed while training goes on."""

import math
import subprocess
import sys

import pytest

from lsdr.representation.measures.findings import KINDS, judge
from lsdr.representation.measures.watch import OverfittingWatch

ABOUT = {"width": 64, "train": 1000, "heldout": 200, "finite": 1.0, "variation": 0.6, "chance": 0.1}
GOOD = {
    "effective_rank": 30.0,
    "effective_rank@raw": 40.0,
    "dead_dimensions": 0.0,
    "invariance": 0.9,
    "invariance@raw": 0.4,
    "view_retrieval": 0.9,
    "view_retrieval@raw": 0.8,
    "linear_probe": 0.95,
    "linear_probe@raw": 0.8,
    "overfitting_gap": 0.01,
    "knn_gap": 0.0,
}


def kinds(measures, **about):
    return [each["kind"] for each in judge(measures, {**ABOUT, **about})["findings"]]


def test_nothing_is_found_in_a_good_encoder():
    told = judge(GOOD, ABOUT)
    assert told["findings"] == []
    assert told["answer"] == "No, it has not collapsed: the codes vary in about 30.0 of 64 directions."


@pytest.mark.parametrize(
    ("changed", "about", "kind", "answer"),
    [
        ({}, {"variation": 0.0}, "collapsed", "Yes, it has collapsed: the encoder gives all examples the same code."),
        ({}, {"variation": 1e-8}, "collapsed", "Yes, it has collapsed: only 1e-08 of the mean square"),
        ({"effective_rank": 1.2}, {}, "collapsed", "Yes, it has collapsed: the codes vary along one direction, or"),
        ({"effective_rank": 4.0}, {}, "dimensional_collapse", "Yes, in part: dimensional collapse: the codes vary in"),
        ({}, {"finite": 0.5}, "not_finite", "It cannot be said whether it has collapsed: the codes of 50.00% of"),
        ({"linear_probe": 0.3}, {}, "shortcut", "It has not collapsed, but it takes a shortcut: two views agree"),
        (
            {"linear_probe": 0.15, "linear_probe@raw": None},
            {},
            "shortcut",
            "It has not collapsed, but it takes a short",
        ),
        (
            {"linear_probe": None, "linear_probe@raw": None, "view_retrieval": 0.2},
            {"chance": None},
            "shortcut",
            "It has not collapsed, but it takes a shortcut: two views agree (ICC 0.90) on what tells little of the "
            "examples: 20.0% of them find their own other view by their codes, 80.0% by the raw inputs.",
        ),
        ({"invariance": 0.3}, {}, "not_invariant", "No, it has not collapsed"),
        ({"linear_probe": 0.81}, {}, "no_gain", "No, it has not collapsed"),
        ({"overfitting_gap": 0.2}, {}, "overfits", "No, it has not collapsed"),
        ({"knn_gap": 0.2}, {}, "overfits", "No, it has not collapsed"),
        ({"dead_dimensions": 0.2}, {}, "dead_dimensions", "No, it has not collapsed"),
        ({}, {"heldout": 1}, "few_examples", "No, it has not collapsed"),
        ({}, {"train": 60}, "few_examples", "No, it has not collapsed"),
    ],
)
def test_what_is_found(changed, about, kind, answer):
    told = judge({**GOOD, **changed}, {**ABOUT, **about})
    assert told["answer"].startswith(answer)
    assert kind == told["findings"][0]["kind"]
    assert kind in KINDS


def test_what_is_not_found():
    assert kinds({**GOOD, "effective_rank": 4.0, "effective_rank@raw": 5.0}) == []  # a table of few columns
    assert kinds({**GOOD, "effective_rank": 1.2, "effective_rank@raw": 2.0}) == []
    assert kinds({**GOOD, "effective_rank": 9.0, "effective_rank@raw": 40.0}) == []
    assert kinds({**GOOD, "invariance": 0.7, "linear_probe": 0.3}) == ["no_gain"]  # no shortcut: views do not agree
    assert kinds({**GOOD, "view_retrieval": 0.1}) == []  # the labels say more
    assert kinds({**GOOD, "linear_probe": None, "invariance@raw": math.nan}) == []
    assert kinds({**GOOD, "linear_probe": 0.4, "linear_probe@raw": 0.12, "linear_probe@random": 0.3}) == []


def test_worse_than_a_reference_is_a_warning_and_the_same_a_note():
    worse, same = (judge({**GOOD, "linear_probe": value}, ABOUT)["findings"][0] for value in (0.6, 0.81))
    assert (worse["severity"], same["severity"]) == ("warning", "note")
    assert "worse than one of raw inputs (60.0% and 80.0%)" in worse["message"]
    assert "no better, within chance, than" in same["message"]


def test_the_worst_comes_first():
    found = judge({**GOOD, "effective_rank": 4.0, "knn_gap": 0.3, "dead_dimensions": 0.5}, ABOUT)["findings"]
    assert [each["kind"] for each in found] == ["dimensional_collapse", "overfits", "dead_dimensions"]


def told(watch, series):
    return [event for step, values in enumerate(series) for event in watch(values, step)]


def objectives(*pairs):
    return [{"train_objective": float(train), "heldout_objective": float(heldout)} for train, heldout in pairs]


def test_the_watch_speaks_once_when_the_held_out_objective_rises_again():
    series = objectives((9, 9), (5, 5), (4, 6), (3, 6), (2, 7), (1, 8), (0, 9))
    events = told(OverfittingWatch(patience=3), series)
    assert [(each["signal"], each["step"], each["best"], each["best_step"]) for each in events] == [
        ("heldout_objective", 4, 5.0, 1)
    ]
    assert events[0]["kind"] == "overfitting"
    assert "was 5 at step 1 and is 7 now, while that of training examples went from 5 to 2" in events[0]["message"]


def test_the_watch_is_silent():
    assert told(OverfittingWatch(), objectives((9, 9), (5, 5), (6, 6), (7, 7), (8, 8))) == []  # both rise
    assert told(OverfittingWatch(), objectives((9, 9), (5, 5), (4, 5.3), (3, 5.3), (2, 5.3))) == []  # a trifle
    assert told(OverfittingWatch(), objectives((9, 9), (5, 5), (4, 7), (3, 7), (2, 4), (1, 7), (0, 7))) == []
    assert told(OverfittingWatch(), objectives((-1, -1), (-5, -5), (-6, -6))) == []  # objectives may be negative
    assert told(OverfittingWatch(), [{"heldout_objective": math.nan, "train_objective": 1.0}, {}]) == []


def test_the_watch_follows_a_probe():
    events = told(OverfittingWatch(patience=2), [{"knn": value} for value in (0.5, 0.9, 0.86, 0.8, 0.84, 0.7)])
    assert [(each["signal"], each["step"], each["best"]) for each in events] == [("knn", 4, 0.9)]
    assert "the kNN probe told 90.0% of the held-out examples right at step 1 and 84.0% now" in events[0]["message"]


def test_the_watch_refuses_what_makes_no_sense():
    with pytest.raises(ValueError, match="patience must be a number of evaluations"):
        OverfittingWatch(patience=0)
    with pytest.raises(ValueError, match="fall must be a finite number above 0, got 0"):
        OverfittingWatch(fall=0.0)


def test_names_options_and_findings_need_no_torch():
    modules = ", ".join(f"lsdr.representation.measures.{name}" for name in ("catalogue", "config", "findings", "watch"))
    check = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
