"""The page of an operator, from its JSON alone."""

import contextlib
import copy
import json
import math
import random
import re

import numpy as np
import pytest

from lsdr.report.operator.page import write_operator_page


def words(page):
    return re.sub(r"<script>.*?</script>", "", page, flags=re.S)


def plots(page):
    """The traces of every plot by name."""
    found = re.findall(r'id="plot-([\w-]+)".*?<script type="application/json">(.*?)</script>', page, flags=re.S)
    return {name: json.loads(text)["data"] for name, text in found}


def values(trace):
    """A trace's y values, which may be packed."""
    packed = trace["y"]
    if isinstance(packed, dict):
        import base64

        return np.frombuffer(base64.b64decode(packed["bdata"]), dtype=packed["dtype"])
    return np.array([math.nan if value is None else value for value in packed], dtype=float)


@pytest.fixture
def page(operator_found, tmp_path):
    def write(found=None, **changes):
        found = operator_found(**changes) if found is None else found
        return write_operator_page(found, tmp_path / "page.html").read_text()

    return write


def test_findings_stand_first_the_worst_marked(page):
    text = words(page())
    assert text.index("predict v, not epsilon") < text.index("Spectrum of the step")
    assert re.search(r'chip severity worse">error<', text)
    assert re.search(r'chip severity neutral">note<', text)
    assert "behaves as a good one does" in words(page(findings=[]))


def test_every_subject_has_its_plot(page):
    names = {
        "eigenvalues", "gains", "time-scales", "singular-values", "asymmetry", "smallest", "calibration", "lyapunov",
        "density",
    }  # fmt: skip
    assert plots(page()).keys() == {"power"} | {f"operator-{name}" for name in names}


def test_eigenvalues_are_drawn_by_rank_with_band_and_gaussian_prediction(page, operator_found):
    traces = plots(page())["operator-eigenvalues"]
    levels = operator_found()["levels"]
    drawn = [trace for trace in traces if trace.get("legendgroup", "").startswith("rank") and "fill" not in trace]
    largest = next(trace for trace in drawn if "largest" in trace.get("hovertemplate", ""))
    np.testing.assert_allclose(values(largest), [level["eigenvalues"]["median"][0] for level in levels])
    assert sum("number" in trace.get("hovertemplate", "") for trace in drawn) == 7
    band = next(trace for trace in traces if trace.get("fill") == "tonexty")
    np.testing.assert_allclose(values(band), [level["eigenvalues"]["high"][0] for level in levels])
    gaussian = [values(trace) for trace in traces if trace.get("name") == "Gaussian data"]
    np.testing.assert_allclose(gaussian[0], [level["gaussian"][0] for level in levels])
    np.testing.assert_allclose(gaussian[1], [level["gaussian"][-1] for level in levels])


@pytest.mark.parametrize(
    ("frame", "signal", "noise"),
    [("exploding", 1.0, 0.5), ("preserving", math.sqrt(5 / 2), 0.5 * math.sqrt(5 / 2)), ("flow", 1.5, 0.75)],
)
def test_gains_lie_between_those_of_noise_and_of_image(page, frame, signal, noise):
    levels = [{"sigma": sigma, "sigma_next": sigma / 2, "gains": [0.9, 0.6]} for sigma in (2.0, 8.0)]
    traces = {trace.get("name"): trace for trace in plots(page(levels=levels, frame=frame))["operator-gains"]}
    assert values(traces["pure image"])[0] == pytest.approx(signal)
    assert values(traces["pure noise"])[0] == pytest.approx(noise)


def test_a_direction_that_grows_has_no_time_scale_but_a_mark(page):
    levels = [
        {"sigma": 1.0, "eigenvalues": {"median": [1.2, 0.5]}, "time_scales": [-5.0, 2.0]},
        {"sigma": 2.0, "eigenvalues": {"median": [1.0, 0.5]}, "time_scales": [None, 2.0]},
        {"sigma": 3.0, "eigenvalues": {"median": [0.75, 0.5]}, "time_scales": [4.0, 2.0]},
    ]
    text = page(levels=levels)
    traces = plots(text)["operator-time-scales"]
    marks = next(trace for trace in traces if trace["mode"] == "markers")
    assert marks["x"] == [1.0, 2.0] or values({"y": marks["x"]}).tolist() == [1.0, 2.0]
    largest = next(trace for trace in traces if "largest<" in trace["hovertemplate"])
    np.testing.assert_array_equal(values(largest), [math.nan, math.nan, 4.0])
    assert text.count(">grows</td>") == 2


def test_calibration_shows_what_the_jacobian_tells_with_its_error(page, operator_found):
    traces = {trace.get("name"): trace for trace in plots(page())["operator-calibration"]}
    told = next(trace for name, trace in traces.items() if name.startswith("σ² tr J"))
    level = operator_found()["levels"][2]
    assert values(told)[2] == pytest.approx(level["sigma"] ** 2 * level["trace"])
    error = values({"y": told["error_y"]["array"]})
    assert error[2] == pytest.approx(level["sigma"] ** 2 * level["trace_error"])
    assert np.isnan(values(told)[-1]), "a trace that is negative has no place on a logarithmic axis"
    level = {"sigma": 2.0, "trace": 0.25, "mse": 0.1}
    assert '<td class="n">+10.0</td>' in page(levels=[level])


def test_ridges_are_as_high_as_their_room_whatever_the_density(page):
    density = lambda peak: {"value": [0.0, 0.5, 1.0], "density": [0.0, peak, 0.0]}  # noqa: E731
    levels = [{"sigma": 1.0, "density": density(3.0)}, {"sigma": 2.0, "density": density(0.1)}]
    traces = plots(page(levels=levels))["operator-density"]
    tops = sorted(float(values(trace).max()) for trace in traces if trace.get("fill") == "tonexty")
    assert tops == pytest.approx([0.85, 1.85])


@pytest.mark.parametrize(
    ("peak", "said"),
    [
        ({"period": 2.0, "frequency": [0.0, 0.5]}, "upright stripes that repeat every 2 pixels"),
        ({"period": 4.0, "frequency": [-0.25, 0.0]}, "level stripes that repeat every 4 pixels"),
        ({"period": 2.83, "frequency": [0.25, 0.25]}, "stripes rising to the right, 45° from level,"),
        ({"period": 2.83, "frequency": [0.25, -0.25]}, "stripes falling to the right, 45° from level,"),
        ({"period": 2.83, "frequency": [-0.25, -0.25]}, "stripes rising to the right, 45° from level,"),
        ({"period": 1.414, "frequency": [0.5, 0.5]}, "a checkerboard of single pixels"),
        ({"period": 3.0, "orientation": 90.0}, "level stripes that repeat every 3 pixels"),
        ({"period": 3.0, "orientation": None}, "stripes that repeat every 3 pixels"),
    ],
)
def test_artifacts_are_said_in_words(page, peak, said):
    assert said in words(page(artifacts=[{"decibels": 7.0, "p_value": 1e-4, **peak}]))


def test_pictures_of_artifacts_show_their_stripes():
    import base64
    import io

    from PIL import Image

    from lsdr.report.operator.artifacts import artifacts

    def pixels(frequency):
        (found,) = artifacts([{"period": 2.0, "frequency": frequency, "decibels": 1.0}])
        return np.array(Image.open(io.BytesIO(base64.b64decode(found.picture.split(",")[1])))).astype(float)

    upright, level, both = pixels([0.0, 0.25]), pixels([0.25, 0.0]), pixels([0.5, 0.5])
    assert (upright == upright[:1]).all()
    assert (upright[:, 4:] == upright[:, :-4]).all()
    assert np.ptp(upright[0]) > 150
    assert (level == upright.T).all()
    assert both[0, 0] == both[1, 1] != both[0, 1]


def test_no_artifact_is_told_from_no_search(page):
    assert "None was found" in words(page(artifacts=[]))
    assert "not searched for" in words(page(artifacts=None))


def test_text_of_a_file_cannot_be_code(page):
    evil = "</script><img src=x onerror=alert(1)>"
    found = {"severity": evil, "kind": evil, "message": evil}
    text = page(source=evil, model=evil, why=evil, prediction=evil, frame=evil, estimator=evil, findings=[found])
    assert "<img src=x" not in text
    assert "&lt;img src=x" in text


def _places(value, path=()):
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, child in children:
        yield from _places(child, (*path, key))


def _with(found, path, value):
    found = copy.deepcopy(found)
    place = found
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return found


_BROKEN = (None, math.nan, math.inf, -math.inf, -1.0, 0, 1e300, True, "x", "", [], [math.nan], [None], ["x"], {})


def broken(found, seed, share=0.06):
    """Some of the values replaced by something else."""
    random_ = random.Random(seed)
    for path in [path for path in _places(found) if path and random_.random() < share]:
        with contextlib.suppress(KeyError, IndexError, TypeError):  # what held it is broken already
            found = _with(found, path, random_.choice(_BROKEN))
    return found


@pytest.mark.parametrize("seed", range(12))
def test_whatever_is_missing_or_not_finite_is_left_out(operator_found, seed, monkeypatch, tmp_path):
    from lsdr.cli.inspect_operator_view import show_operator
    from lsdr.report import render

    monkeypatch.setattr(render, "get_plotlyjs", lambda: "")
    found = broken(operator_found(3), seed)
    page = write_operator_page(found, tmp_path / "page.html").read_text()
    show_operator(found)
    assert "</html>" in page
    assert "NaN" not in page
    assert "Infinity" not in page


@pytest.mark.parametrize("found", [{}, {"levels": []}, {"levels": [{"sigma": 1.0}]}, {"levels": None}])
def test_nothing_measured_is_said(page, found):
    text = words(page(found))
    assert "No noise level was measured" in text
    assert "plot-operator" not in text
    assert "No power spectra were measured" in text
