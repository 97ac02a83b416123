"""The report of representations is made from their files alone: how good, invariant, robust and compact codes are."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from lsdr.report.figures.objective import terms
from lsdr.report.load import load
from lsdr.report.report import write_report
from lsdr.report.representation.files import facts
from lsdr.report.representation.words import answers, enough_dimensions, good, invariant
from lsdr.runs import append_record, read_json, write_json


class _Page(HTMLParser):
    """Identities, visible text and plots of a page."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.words, self.plots, self._open = [], [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.text = " ".join(" ".join(self.words).replace("\u202f", " ").split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._open.append(dict(attrs).get("type", tag))

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self._open.pop()

    def handle_data(self, data):
        if not self._open:
            self.words.append(data)
        elif self._open[-1] == "application/json":
            self.plots.append(json.loads(data))

    @property
    def names(self):
        return [attrs["id"].removeprefix("plot-") for tag, attrs in self.tags if tag == "figure" and "id" in attrs]

    def lines(self, name):
        """Of a plot, what is drawn last under each name, and where."""
        figure = self.plots[self.names.index(name)]
        return {trace.get("name"): (_values(trace["x"]), _values(trace["y"])) for trace in figure["data"]}


def _values(column):
    if isinstance(column, dict):
        import base64

        return np.frombuffer(base64.b64decode(column["bdata"]), column["dtype"]).tolist()
    return column


@pytest.fixture(scope="module")
def alone(tmp_path_factory, representations):
    return representations.write_representation_run(tmp_path_factory.mktemp("codes") / "run")


@pytest.fixture(scope="module")
def page(alone):
    return _Page(write_report(alone))


@pytest.fixture(scope="module")
def compared(tmp_path_factory, representations):
    folder = tmp_path_factory.mktemp("compared")
    return _Page(write_report(representations.write_representation_experiment(folder)))


@pytest.fixture
def read(tmp_path, representations):
    """Write a run, change some of its files, and read it."""

    def changed(**files):
        run = representations.write_representation_run(tmp_path / "run")
        for name, content in files.items():
            write_json(run / f"{name}.json", content)
        results = load(run)
        return next(iter(facts(results, []).values()))[0]

    return changed


def test_a_lone_run_is_told_to_be_a_representation(alone, page):
    assert load(alone).task == "representation"
    assert "baseline, seed 0: one training run on 1437 images of 8 × 8 pixels" in page.text
    assert "What the codes are worth" in page.text
    for absent in ("Is this mode collapse?", "Denoising loss", "Sensitivity", "learning rate", "Power spectra"):
        assert absent not in page.text


def test_how_good_beside_what_needs_no_training(page):
    assert re.search(
        r"With 14 labels \(1 % of them\) a linear probe on the codes is right for 82.\d? ?% of held-out examples: more "
        r"than with raw inputs \(5\d.\d %\), PCA \(5\d(.\d)? %\) and the untrained encoder \(5\d.\d %\)\.",
        page.text,
    )
    assert (
        "With all 1437 labels a linear probe on the codes is right for 96 % of held-out examples: no clear "
        in page.text
    )
    assert "Always naming the most common class is right for 10 %." in page.text


def test_how_invariant_robust_and_compact(page):
    assert "The codes are invariant to rotation; partly invariant to lighting." in page.text
    assert "rotation 30°: 95 % (raw inputs 30 %); lighting 0.4: 70 % (raw inputs 80 %)." in page.text
    assert "Not trained with, and measured all the same: not invariant to blur." in page.text
    assert (
        "At severity 5 of 3 corruptions the probe’s accuracy falls from 96 % to 66 % on average, less than on raw "
        "inputs (95.5 % to 35.5 %). Hardest: pixelate (51 %); easiest: gaussian noise (81 %)."
    ) in page.text
    assert (
        "The first 16 of 64 ordered dimensions are as good as the whole code to within one point (95.8 % against "
        "96 %); as many principal components of the inputs reach 85.8 %. Their variance is spread over about 24 of 64 "
        "directions (RankMe)."
    ) in page.text
    assert "The objective is 11 on training examples and 12 on held-out ones: 9.1 % worse." in page.text
    assert "No, it has not collapsed: 24 of 64 directions. 12% of the dimensions never vary." in page.text
    assert "no better than raw inputs" not in page.text


def test_the_table_has_the_references_first(page):
    row = page.text[page.text.index("fewer is more compact") :]
    assert re.search(r"raw inputs 5\d.*PCA 5\d.*untrained encoder 5\d.* baseline 8\d", row)
    assert re.search(r"baseline 82(\.\d)? % .* 82.5 % 78 % 16 ", row)


def test_curves_are_drawn_from_the_files(page):
    linear = page.lines("labels-linear")
    assert set(linear) == {"raw inputs", "PCA", "untrained encoder", "baseline, seed 0"}
    assert linear["baseline, seed 0"][0] == [14, 144, 1437]
    assert linear["baseline, seed 0"][1][0] == pytest.approx(0.82, abs=0.01)
    rotation = page.lines("icc-0")
    assert rotation["baseline, seed 0"] == ([5, 15, 30, 90], pytest.approx([0.99, 0.97, 0.95, 0.3]))
    assert rotation["raw inputs"][1] == pytest.approx([0.9, 0.6, 0.3, 0.1])
    assert page.lines("corruptions")["baseline, seed 0"][1] == pytest.approx([0.96, 0.9, 0.84, 0.78, 0.72, 0.66])
    assert page.lines("length")["principal components of the inputs"][1][3] == pytest.approx(0.84)
    assert page.lines("canonical")["baseline, seed 0"][1][0] == pytest.approx(0.99)
    spectrum = page.lines("code-spectrum")
    assert sum(spectrum["baseline, seed 0"][1]) == pytest.approx(1, abs=1e-5)
    assert len(spectrum["before training"][1]) == 41  # what is left above rounding
    assert set(page.lines("layer-spectra")) == {"backbone.stem", "backbone.blocks.0"}
    assert set(page.lines("ignored")) == {"Rotation", "Lighting"}
    assert set(page.lines("terms")) == {"Invariance", "Variance", "Covariance"}
    assert {"codes-objective", "codes-knn", "codes-directions", "codes-invariance", "minimised"} <= set(page.names)


def test_trained_transformations_come_first_and_the_others_apart(page):
    section = page.text[page.text.index("Codes that are constant have no variance") :]
    order = [section.index(word) for word in ("Trained with", "Rotation", "Lighting", "Not trained with", "Blur")]
    assert order == sorted(order)


def test_terms_of_the_projector_and_of_the_layers_are_kept_apart(tmp_path, representations):
    run = representations.write_representation_run(tmp_path)
    (run / "metrics.jsonl").unlink()
    record = {"step": 20, "A/projector": 9.0, "A/projector/variance": 1.0, "B/blocks.0/variance": 2.0}
    append_record(run / "metrics.jsonl", {**record, "B/blocks.1/variance": 4.0})
    found = terms(load(run).runs[0])
    assert {name: values.tolist() for name, (_, values) in found.items()} == {
        "variance": [1.0],
        "variance, layer by layer": [3.0],
    }


def test_a_difference_needs_all_draws_and_more_than_chance(read):
    shares, labels = [0.01], [14]

    def told(codes, raw, heldout):
        accuracy = {"codes": [codes], "raw": [raw]}
        probes = {"linear": {"shares": shares, "labels": labels, "accuracy": accuracy}}
        return good(read(probes=probes), heldout).text.replace("\u202f", " ")

    assert "more than with raw inputs (50 %)" in told([0.8, 0.8, 0.8], [0.5, 0.5, 0.5], 400.0)
    assert "no clear difference from raw inputs" in told([0.8, 0.8, 0.8], [0.5, 0.5, 0.5], 10.0)
    assert "no clear difference from raw inputs" in told([0.8, 0.8, 0.4], [0.5, 0.5, 0.5], 400.0)
    assert "less than with raw inputs (80 %)" in told([0.5, 0.5, 0.5], [0.8, 0.8, 0.8], 400.0)


def test_collapse_is_said_first(tmp_path, representations):
    run = representations.write_representation_run(tmp_path, collapsed=True)
    told = answers(next(iter(facts(load(run), []).values()))[0])
    assert told[0].text == "Yes, it has collapsed: all codes are alike."
    assert told[0].more == ["12% of the dimensions never vary."]
    text = _Page(write_report(run)).text
    assert "collapse baseline, seed 0, step 200: the codes vary along one direction." in text
    assert "The guard caught nothing" in text


def test_what_was_not_trained_with_is_not_praised(read):
    about = {"strengths": [1.0], "icc": {"codes": [0.95]}, "trained": False, "trained_strength": None}
    told = invariant(read(invariance={"transformations": {"noise": about}}))
    assert told.text == "The codes are invariant to noise."
    assert told.more == []


def test_no_shorter_code_may_be_good_enough(read):
    accuracy = {"ordered": [0.2, 0.5, None], "unordered": [0.3, 0.6, 0.9]}
    found = read(probes={"length": {"dimensions": [1, 2, 4], "accuracy": accuracy}})
    assert np.isnan(enough_dimensions(found))
    words = [each.text.replace("\u202f", " ") for each in answers(found)]
    assert (
        "No shorter ordered code is as good as the whole one of 4 dimensions (90 %): the first 2 reach 50 %." in words
    )


def test_texts_are_shown_as_words(tmp_path, representations):
    run = representations.write_representation_run(tmp_path, modality="text")
    page = _Page(write_report(run))
    assert "one training run on 1437 texts" in page.text
    assert "93 % of the nearest neighbours have the example’s label; by chance 10 %." in page.text
    assert "a <b>sparse</b> matrix" in page.text  # escaped, or it would be bold
    assert "Responds to matrix (0.80), sparse (0.50)." in page.text
    assert "Direction 1" in page.text
    assert "Robustness" not in page.text


def test_pictures_of_neighbours_and_directions(page):
    shown = [attrs["alt"] for tag, attrs in page.tags if tag == "img"]
    assert any("training examples whose codes are nearest" in alt for alt in shown)
    assert any("low and at the high end" in alt for alt in shown)
    assert "agreement of two views 0.980, 20 % of the variance." in page.text


def test_a_comparison(compared):
    assert "compared with baseline on 1437 images" in compared.text
    assert "Linear probe, 1% of labels (the primary measure) and cost of every method" in compared.text
    assert re.search(r"is right for 82.\d %, on raw inputs for \d\d.\d %: more in 5 of 5 seeds", compared.text)
    assert (
        "Something is wrong in 1 of 5 runs; sim_clr, seed 1: Yes, it has collapsed: all codes are alike."
    ) in compared.text
    assert "collapse sim_clr, seed 1, step 200" in compared.text
    lines = compared.lines("labels-linear")
    assert {"baseline, median", "barlow_twins, median", "sim_clr, median", "raw inputs"} <= set(lines)
    assert len(compared.plots[compared.names.index("labels-linear")]["data"]) == 3 + 3 * 6
    assert {"term-0", "term-1", "term-2"} <= set(compared.names)
    assert "linear probe" in compared.text


def test_damaged_files_do_not_stop_the_report(tmp_path, representations):
    run = representations.write_representation_run(tmp_path)
    (run / "probes.json").write_text("{")
    for name in ("invariance", "corruption", "spectra", "neighbours", "directions", "findings"):
        write_json(run / f"{name}.json", {"transformations": [1], "layers": {"a": 1}, "queries": 7})
    (run / "neighbours.png").write_bytes(b"no picture")
    page = _Page(write_report(run))
    assert "probes.json could not be read" in page.text
    assert "is not a readable image" in page.text


def test_a_run_that_measured_nothing(tmp_path):
    write_json(tmp_path / "config.json", {"views": "default", "projector": None, "method": "baseline"})
    write_json(tmp_path / "status.json", {"status": "diverged", "step": 3, "steps": 400, "message": "NaN"})
    assert "Nothing has been measured of the codes yet." in _Page(write_report(tmp_path)).text
    assert read_json(tmp_path / "status.json")["step"] == 3
