"""The page of a reduction, from its JSON alone."""

import copy
import json
import math
import random
import re

import numpy as np
import pytest

from lsdr.report.regression import words
from lsdr.report.regression.page import write_regression_page
from lsdr.report.regression.rows import model_table, path_table
from lsdr.report.regression.steps import around, frequencies, least_place, shortened, steps_in, training


def text_of(page):
    return re.sub(r"<script.*?</script>|<style>.*?</style>", "", page, flags=re.S)


def plots(page):
    """Every plot by name."""
    found = re.findall(r'id="plot-([\w-]+)".*?<script type="application/json">(.*?)</script>', page, flags=re.S)
    return {name: json.loads(text) for name, text in found}


def values(packed):
    """Numbers of a trace, which may be packed."""
    if isinstance(packed, dict):
        import base64

        found = np.frombuffer(base64.b64decode(packed["bdata"]), dtype=packed["dtype"])
        return found.reshape([int(size) for size in packed["shape"].split(",")]) if "shape" in packed else found
    return np.array([math.nan if value is None else value for value in packed], dtype=float)


def named(plot, name):
    return next(trace for trace in plot["data"] if trace.get("name") == name)


@pytest.fixture(scope="module")
def found(reductions):
    return reductions.found()


@pytest.fixture(scope="module")
def page(found, tmp_path_factory):
    """The text of a page, of what was found with changes or of something else; the unchanged one is written once."""
    path = tmp_path_factory.mktemp("page") / "page.html"
    plain = write_regression_page(found, path).read_text()

    def write(given=None, **changes):
        if given is None and not changes:
            return plain
        return write_regression_page(found | changes if given is None else given, path).read_text()

    return write


def test_outcome_is_told_in_words(page):
    told = text_of(page())
    assert "8 of 10 terms kept: area, bedrooms, bathrooms, lot, age, garage, distance and location." in told
    assert "The smallest model within one SE." in told
    assert "Dropped, the weakest first: house_number and floors." in told
    assert "Held-out mean squared error 96.978 ± 5.0, the least on the path; with every term 97.399." in told
    assert "On the rows fitted it went from 92.91 to 93.37." in told
    assert "3 of 403 rows have missing values" in told
    assert "Never entered: rooms (duplicate of bedrooms)." in told
    assert "are descriptive" in told
    assert "largest variance inflation 6.1" in told


@pytest.mark.parametrize(
    ("size", "rest"),
    [
        (10, "97.399 ± 5.3; the least is 96.978 with 8 terms."),
        (7, "98.519 ± 5.0; the least is 96.978 with 8 terms, with all 97.399."),
    ],
)
def test_the_errors_of_another_choice_are_told(size, rest, found):
    assert f"Held-out mean squared error {rest}" in words.outcome(found | {"chosen": {"size": size}})[-1]


def test_where_the_whole_model_is_best_that_is_told(found):
    steps = [{**found["steps"][0], "mse_heldout": 90.0}, *found["steps"][1:]]
    told = words.outcome(found | {"steps": steps})[-1]
    assert "error 96.978 ± 5.0; with every term 90, the least on the path." in told
    told = words.outcome(found | {"steps": steps, "chosen": {"size": 10}})[-1]
    assert "error 90 ± 5.3, the least on the path." in told


def test_every_subject_has_its_plot(page):
    assert plots(page()).keys() == {"error", "error-near", "criteria", "coefficients", "tvalues", "stability"}


def test_error_has_both_curves_bars_and_the_chosen_size(page, found):
    drawn = plots(page())["error"]
    heldout, fitted = named(drawn, "held out, cross-validated"), named(drawn, "training, in-sample")
    assert values(heldout["x"]).tolist() == list(range(10, -1, -1))
    np.testing.assert_allclose(values(heldout["y"]), [step["mse_heldout"] for step in found["steps"]])
    np.testing.assert_allclose(values(heldout["error_y"]["array"]), [step["mse_heldout_se"] for step in found["steps"]])
    np.testing.assert_allclose(values(fitted["y"]), [step["rss"] / found["n"] for step in found["steps"]])
    assert (np.diff(values(fitted["y"])) > 0).all()
    assert [shape["x0"] for shape in drawn["layout"]["shapes"]] == [8]
    assert drawn["layout"]["yaxis"]["type"] == "log"  # without any term the error is sixty times as large


def test_with_a_penalty_the_training_error_is_not_said_to_rise(page):
    assert "The error on the rows fitted can only rise" in text_of(page())
    penalised = text_of(page(ridge=2.0))
    assert "The penalised error on the rows fitted can only rise" in penalised
    assert "ridge 2" in penalised
    assert "; it can only rise" not in penalised


def test_near_the_choice_the_limit_of_one_standard_error_is_drawn(page, found):
    drawn = plots(page())["error-near"]
    best = min(found["steps"], key=lambda step: step["mse_heldout"])
    lines = {shape["y0"] for shape in drawn["layout"]["shapes"] if shape["y0"] == shape["y1"]}
    assert lines == {best["mse_heldout"] + best["mse_heldout_se"]}
    assert values(drawn["data"][0]["x"]).min() == 5
    assert drawn["layout"]["yaxis"]["type"] == "linear"


def test_without_folds_the_training_error_is_said_to_tell_nothing(page, found):
    steps = [{**step, "mse_heldout": None, "mse_heldout_se": None} for step in found["steps"]]
    text = page(steps=steps)
    assert "That tells nothing about which size predicts best" in text_of(text)
    assert [trace["name"] for trace in plots(text)["error"]["data"]] == ["training, in-sample"]
    assert "held-out MSE" not in text_of(text)
    assert "least held-out" not in text_of(text)


def test_criteria_stand_above_their_least(page, found):
    drawn = plots(page())["criteria"]
    for name in ("AIC", "BIC"):
        every = [step[name.lower()] for step in found["steps"]]
        np.testing.assert_allclose(values(named(drawn, name)["y"]), np.array(every[:6]) - min(every), rtol=1e-6)


def test_coefficients_are_standardised_where_scales_are_known(page, found):
    trace = named(plots(page())["coefficients"], "area")
    expected = [
        step["params"]["area"] * found["scales"]["area"] / found["scales"]["price"]
        for step in found["steps"]
        if "area" in step["params"]
    ]
    np.testing.assert_allclose(values(trace["y"]), expected, rtol=1e-6)
    alone = plots(page(scales={}))["coefficients"]
    assert alone["layout"]["yaxis"]["title"]["text"] == "coefficient over its largest"
    for trace in alone["data"]:
        assert np.abs(values(trace["y"])).max() == pytest.approx(1)


def test_t_ends_where_a_term_leaves(page, found):
    drawn = plots(page())["tvalues"]
    assert len(drawn["data"]) == 12
    assert "Intercept" not in {trace["name"] for trace in drawn["data"]}
    floors, area = named(drawn, "floors"), named(drawn, "area")
    assert values(floors["x"]).tolist() == [10, 9]
    assert values(floors["marker"]["size"]).tolist() == [0, 7]
    assert values(area["x"]).min() == 1
    distance = [abs(step["tvalues"]["distance"]) for step in found["steps"] if "distance" in step["tvalues"]]
    np.testing.assert_allclose(values(named(drawn, "distance")["y"]), distance, rtol=1e-6)


def test_frequencies_are_a_field_the_steadiest_term_on_top(page, found):
    drawn = plots(page())["stability"]
    field = drawn["data"][0]
    assert drawn["layout"]["yaxis"]["ticktext"][0] == "area"
    assert field["customdata"][0][0] == "area"
    told = found["frequencies"]
    shares = [row[told["terms"].index("area")] for row in told["values"]]
    np.testing.assert_allclose(values(field["z"])[0], shares[::-1], atol=5e-4)
    assert values(field["x"]).tolist() == list(range(11))
    assert "stability" not in plots(page(frequencies=None))


def test_chosen_model_stands_beside_its_split_sample_t(found):
    columns = {column.label: column.cells for column in model_table(found)}
    place = columns["column"].index("bathrooms")
    assert columns["t, descriptive"][place] == "2.68"
    assert columns["split: t"][place] == "0.946"
    assert columns["split: p"][place] == "0.3451"
    assert columns["split: 95 %"][place] == "−1.39 to 3.94"
    assert columns["kept"][columns["column"].index("location[hills]")] == "100%"
    assert columns["kept"][columns["column"].index("Intercept")] == "—"


def test_a_split_that_chose_other_terms_says_so(found):
    split = copy.deepcopy(found["split"])
    split["features"] = [name for name in split["features"] if name != "bathrooms"] + ["floors"]
    for what in ("params", "bse", "tvalues", "pvalues", "conf_int"):
        split[what]["floors"] = split[what].pop("bathrooms")
    columns = {column.label: column.cells for column in model_table(found | {"split": split})}
    assert columns["split: t"][columns["column"].index("bathrooms")] == "—"
    assert columns["coefficient"][columns["column"].index("floors")] == "—"
    told = words.split_sentence(found | {"split": split | {"rows_selection": 200}})
    assert told.endswith("That half chose 8 terms, without bathrooms and with floors.")
    assert "on 200 rows" in told
    assert words.split_sentence(found).endswith("That half chose the same terms.")
    assert words.split_sentence(found | {"split": None}) == ""


def test_steps_are_a_table_with_the_choice_marked(page, found):
    columns, marks = path_table(found)
    cells = {column.label: column.cells for column in columns}
    assert cells["goes next"][:3] == ["house_number", "floors", "bathrooms"]
    assert cells["its t"][8] == "F 40.6 (3)"
    assert cells["its t"][-1] == "—"
    assert "Cp" not in cells
    assert marks == ["", "", "chosen"] + [""] * 8
    other = path_table(found | {"chosen": {"size": 7}})[1]
    assert other[2:4] == ["least", "chosen"]
    row = re.search(r'<tr class="chosen">(.*?)</tr>', page(), flags=re.S).group(1)
    assert "chosen</span> 8</td>" in row


def test_hundreds_of_terms_stay_light(page, reductions):
    found = reductions.large(500)
    text = page(found)
    empty = page({})
    assert len(text) - len(empty) < 1.2e6
    assert text_of(text).count("<tr") < 450
    assert "left out here" in text_of(text)
    drawn = plots(text)
    assert len(drawn["tvalues"]["data"]) == 48
    assert max(len(values(trace["x"])) for trace in drawn["tvalues"]["data"]) <= 242
    assert values(drawn["stability"]["data"][0]["z"]).shape == (40, 160)
    assert "measurement_0001" not in drawn["error"]["layout"]
    assert "and 108 more" in text_of(text)
    last = [step["removed"] for step in found["steps"][-49:-1]]
    assert {trace["name"] for trace in drawn["tvalues"]["data"]} == set(last)
    buttons = text_of(text).split('id="plot-tvalues"')[1].split("</div>")[0]
    assert [name for name in last if name in buttons] == last[-12:]


GONE = ("model", "split", "frequencies", "scales", "notes", "aliased", "terms", "n", "chosen")


@pytest.mark.parametrize("gone", GONE)
def test_whatever_is_missing_is_left_out(page, found, gone):
    text = page({name: value for name, value in found.items() if name != gone})
    assert "Every step" in text
    if gone == "model":  # the step has coefficients and t itself
        assert "80.3" in text_of(text)


def test_nothing_is_said_of_nothing(page):
    told = text_of(page({}))
    assert "There is no chosen model." in told
    assert "No step has an error." in told
    assert "Every step" not in told


def test_broken_values_do_not_break_the_page(page, found):
    """Values of every kind in the place of others."""
    picks = random.Random(0)
    junk = [None, "text", -1, 0, 1e308, math.nan, math.inf, [], {}, [None], {"a": []}, True]
    for _ in range(12):
        broken = copy.deepcopy(found)
        for _ in range(6):
            place = broken
            while True:
                key = picks.choice(list(place) if isinstance(place, dict) else range(len(place)))
                deeper = place[key]
                if not isinstance(deeper, dict | list) or not deeper or picks.random() < 0.2:
                    place[key] = picks.choice(junk)
                    break
                place = deeper
        page(broken)


def test_names_from_a_table_are_escaped(page, found):
    evil = "</script><img src=x onerror=alert(1)>"
    broken = json.loads(json.dumps(found).replace("house_number", evil))
    text = page(broken)
    assert evil not in text
    assert "<img" not in text_of(text)


def test_rows_far_from_the_choice_are_left_out():
    assert shortened(300, 300, 4) == list(range(300))
    for place in (None, 0, 7, 500, 998, 999):
        rows = shortened(1000, 30, place)
        kept = [row for row in rows if row is not None]
        assert len(rows) <= 30
        assert kept == sorted(set(kept))
        assert {0, 999, place or 0} <= set(kept)
        for before, row, after in zip(rows, rows[1:], rows[2:], strict=False):
            assert row is not None or after - before > 1


def test_reading_of_steps():
    steps = steps_in({"steps": [{"size": 0, "rss": 8.0}, {"size": 2, "rss": 2.0}, {"size": "x"}, 3]})
    assert [step["size"] for step in steps] == [2, 0]
    assert training({"n": 4}, steps).tolist() == [0.5, 2.0]
    assert np.isnan(training({}, steps)).all()
    assert training({"n": 4}, [{"mse": 7.0, "rss": 1.0}]).tolist() == [7.0]
    assert least_place(steps) is None
    assert least_place([{"mse_heldout": error} for error in (2.0, 1.0, 1.0, None)]) == 2
    assert around(steps, None) == slice(0, 2)
    assert frequencies({"frequencies": {"sizes": [1, 2], "terms": ["a"], "values": [[1.0]]}})[1] == []


def test_columns_that_the_notes_name_are_not_named_again():
    gone = [{"column": "b", "reason": "constant"}]
    note = "Dropped before the first step: b (constant)."
    assert words.notes({"aliased": gone, "notes": [note]}) == [note]
    assert words.notes({"aliased": gone, "notes": []}) == ["Never entered: b (constant)."]
