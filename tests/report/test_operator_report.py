"""The denoising step and the samples' artefacts in the report of a comparison and of a single run."""

import json
import re

import numpy as np
import pytest

from lsdr.report.figures.operator import operator_plots
from lsdr.report.figures.operator_calibration import calibration_plot
from lsdr.report.figures.operator_density import density_plot
from lsdr.report.load import load
from lsdr.report.report import write_report
from lsdr.runs import read_json, write_json


@pytest.fixture(scope="module")
def directory(tmp_path_factory, write_experiment):
    return write_experiment(tmp_path_factory.mktemp("runs"))


def values(trace, axis="y"):
    packed = trace[axis]
    if isinstance(packed, dict):
        import base64

        return np.frombuffer(base64.b64decode(packed["bdata"]), dtype=packed["dtype"])
    return np.array([np.nan if value is None else value for value in packed], dtype=float)


def traces(plot, name):
    return [trace for trace in json.loads(plot.json)["data"] if str(trace.get("name", "")).startswith(name)]


def set_level(directory, method, seed, place, **changes):
    path = directory / method / f"seed={seed}" / "curves.json"
    curves = read_json(path)
    curves["operator"][place] |= changes
    write_json(path, curves)


def test_every_method_has_its_line_in_every_plot(directory):
    plots = operator_plots(load(directory))
    assert len(plots) == 6
    for plot in [*plots, calibration_plot(load(directory)), density_plot(load(directory))]:
        assert {"baseline", "clip", "decorrelation"} <= {key.label for key in plot.keys}
    assert operator_plots(load(directory / "baseline" / "seed=0"))[0].keys[0].label.startswith("largest")


def test_the_thick_line_is_the_median_over_seeds(tmp_path, write_experiment):
    directory = write_experiment(tmp_path, seeds=3)
    for seed, asymmetry in enumerate((0.1, 0.7, 0.2)):
        set_level(directory, "decorrelation", seed, 0, asymmetry=asymmetry)
    plot = next(plot for plot in operator_plots(load(directory)) if plot.name == "operator-asymmetry")
    (median,) = traces(plot, "decorrelation, median")
    assert values(median)[0] == pytest.approx(0.2)


def test_a_line_does_not_run_through_a_level_where_most_seeds_grow(tmp_path, write_experiment):
    directory = write_experiment(tmp_path, seeds=5)
    growing = {"time_scales": [-4.0], "eigenvalues": {"median": [1.25]}}
    for seed in (0, 1, 2):
        set_level(directory, "decorrelation", seed, 2, **growing)
    for seed in (0, 1):
        set_level(directory, "baseline", seed, 2, **growing)
    for seed, scale in ((2, 40.0), (3, 2.0), (4, 3.0)):
        set_level(directory, "baseline", seed, 2, time_scales=[scale], eigenvalues={"median": [0.5]})
    plot = next(plot for plot in operator_plots(load(directory)) if plot.name == "operator-time-scales")
    (line,) = traces(plot, "decorrelation")
    assert np.isnan(values(line)).tolist() == [False, False, True, False, False]
    (line,) = traces(plot, "baseline")
    assert values(line)[2] == 3.0
    results = load(directory)
    pen = plot.keys[2]
    assert pen.label == "decorrelation"
    marks = [trace for trace in json.loads(plot.json)["data"] if trace.get("mode") == "markers"]
    levels = read_json(results.runs[0].directory / "curves.json")["operator"]
    at = {trace["marker"]["color"]: values(trace, "x").tolist() for trace in marks}
    assert at[pen.colour] == [levels[2]["sigma"]]
    assert levels[2]["sigma"] not in at.get(plot.keys[0].colour, []), "most seeds of the baseline do not grow"


def test_marks_of_several_methods_hide_neither_each_other_nor_a_curve(tmp_path, write_experiment):
    directory = write_experiment(tmp_path, seeds=3)
    for method in ("baseline", "decorrelation"):
        for seed in range(3):
            set_level(directory, method, seed, 2, trace=-0.5, time_scales=[-4.0], eigenvalues={"median": [1.25]})
    times = next(plot for plot in operator_plots(load(directory)) if plot.name == "operator-time-scales")
    for plot, sign in ((times, 1), (calibration_plot(load(directory)), -1)):
        drawn = json.loads(plot.json)["data"]
        marks = [trace for trace in drawn if trace.get("mode") == "markers"]
        rows = [set(values(trace)) for trace in marks]
        assert len(set.union(*rows)) == len(marks) >= 2, "a row each"
        curves = np.concatenate([values(trace) for trace in drawn if trace.get("mode") != "markers"])
        assert min(sign * row for each in rows for row in each) > np.nanmax(sign * curves)
        assert any(key.dash.startswith("triangle") for key in plot.keys)
    gaps = calibration_plot(load(directory))
    (line,) = traces(gaps, "decorrelation")
    assert np.isnan(values(line)[2]), "a negative error has no decibels"


def test_artifacts_are_counted_by_method(directory):
    page = re.sub(r"<script.*?</script>", "", write_report(directory).read_text(), flags=re.S)
    section = page.split("Grids and stripes")[1].split("</section>")[0]
    rows = {row[0]: row[1] for row in re.findall(r"<span>(\w+)</span>.*?runs with any\">(\d of \d)", section, re.S)}
    assert rows == {"baseline": "0 of 5", "clip": "3 of 3", "decorrelation": "0 of 5"}
    assert "upright stripes that repeat every 2 pixels" in section


@pytest.mark.parametrize("name", ["operator", "artifacts"])
def test_runs_without_it_have_no_section(tmp_path, write_run, name):
    write_run(tmp_path)
    curves = read_json(tmp_path / "curves.json")
    heading = {"operator": "Spectrum of the denoising step", "artifacts": "Grids and stripes"}[name]
    assert heading in write_report(tmp_path).read_text()
    del curves[name]
    write_json(tmp_path / "curves.json", curves)
    assert heading not in write_report(tmp_path).read_text()


@pytest.mark.parametrize("value", [None, "x", [], {}, [None], [{}], [{"sigma": None}], [{"sigma": 1.0}], 3.0])
def test_curves_that_are_not_what_they_should_be_are_left_out(tmp_path, write_run, value):
    write_run(tmp_path)
    curves = read_json(tmp_path / "curves.json")
    write_json(tmp_path / "curves.json", {**curves, "operator": value, "artifacts": value})
    assert 'id="plot-operator' not in write_report(tmp_path).read_text()


def test_samples_of_a_single_run_have_a_band(tmp_path, write_run):
    from lsdr.report.figures.power import power_plot

    write_run(tmp_path)
    curves = read_json(tmp_path / "curves.json")
    power = curves["power_spectrum"]
    power["samples_low"] = [value / 3 for value in power["samples"]]
    power["samples_high"] = [value * 3 for value in power["samples"]]
    write_json(tmp_path / "curves.json", curves)
    plot = power_plot(load(tmp_path))
    bands = [trace for trace in json.loads(plot.json)["data"] if trace.get("fill") == "tonexty"]
    np.testing.assert_allclose(values(bands[1]), power["samples_high"][1:], rtol=1e-6)
    assert len(bands) == 2
    assert "10–90 %" in plot.keys[1].label
