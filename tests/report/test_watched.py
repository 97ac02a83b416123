"""Norms while a run trained."""

import json

from lsdr.report.figures.watched import watched_plots
from lsdr.report.load import load
from lsdr.runs import append_record


def _run(folder, rows):
    append_record(folder / "metrics.jsonl", {"step": 1, "loss": 0.5})
    for row in rows:
        append_record(folder / "monitor.jsonl", row)
    return load(folder)


def test_layers_that_moved_most_come_first(tmp_path):
    rows = [
        {
            "step": step,
            **{f"weights/layer{k}/sigma_max": 1 + k * step for k in range(9)},
            "weights/layer0/stable_rank": 3,
        }
        for step in (0, 50)
    ]
    (plot,) = watched_plots(_run(tmp_path, rows))
    assert [key.label for key in plot.keys] == [f"layer{k}" for k in (8, 7, 6, 5, 4, 3)]
    assert json.loads(plot.json)["data"][0]["y"] == [1, 401]


def test_a_layer_seen_once_or_zero_has_no_curve(tmp_path):
    rows = [
        {"step": 0, "weights/a/sigma_max": 1.0, "weights/zero/sigma_max": 0.0},
        {"step": 50, "weights/zero/sigma_max": 0.0, "weights/broken/nonfinite": 3},
    ]
    assert watched_plots(_run(tmp_path, rows)) == []
