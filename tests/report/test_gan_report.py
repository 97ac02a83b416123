"""The report of GANs is made from their files alone: coverage, the game, published rows, what was noticed."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from safetensors.numpy import save_file

from lsdr.report.gan.coverage import worst_run
from lsdr.report.load import load
from lsdr.report.report import write_report
from lsdr.runs import read_json, write_json


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

    def named(self, name):
        figures = [attrs["id"] for tag, attrs in self.tags if tag == "figure" and "id" in attrs]
        return self.plots[figures.index(f"plot-{name}")]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory, gans):
    return gans.write_gan_experiment(tmp_path_factory.mktemp("gans") / "grid")


@pytest.fixture(scope="module")
def page(experiment):
    return _Page(write_report(experiment))


def test_the_primary_measure_is_the_samples_divergence(page):
    assert "compared with baseline on 90 000 points" in page.text
    assert "✓ better Reverse KL, all samples: 0.0150 against 1.60" in page.text
    assert "Reverse KL, all samples (the primary measure) and cost of every method" in page.text
    assert "The primary measure, named before the runs, is the reverse KL, all samples" in page.text
    assert "eld-out loss" not in page.text
    assert "90 000 training points" in page.text


def test_collapse_is_answered_for_every_method(page):
    assert "Of 5 runs: mode collapse in 5. The worst, seed 0: Yes, this is mode collapse: 3 of 25 modes" in page.text
    assert "No sign of mode collapse in any of 5 runs." in page.text
    assert "Of 5 runs: missing modes in 4. The worst, seed 0: In part: 2 of 25 modes are missing." in page.text


def test_a_perfect_sampler_stands_beside(page):
    row = re.search(r"Perfect sampler (.*?) baseline", page.text)[1]
    assert row.startswith("25 98.9 % ± 0.200 % 0.00460 ± 0.00130")
    assert re.search(r"± 1 % baseline 5 3 to 7 98 %", page.text)


def test_published_rows_are_labelled_by_protocol_and_not_mixed(page):
    tables = re.findall(r"'s table: [^.]*?grid", page.text)
    assert len(tables) >= 2
    veegan, pacgan = page.text.index("VEEGAN's table"), page.text.index("PacGAN's table")
    first = page.text[min(veegan, pacgan) : max(veegan, pacgan)]
    assert "17.3" not in first or "3.30" not in first
    assert page.text.count("this comparison") == 3 * len(tables)
    assert "Ours: 2500 samples a run, medians over 5 seeds." in page.text


def test_the_game_is_drawn(page):
    logits = page.named("game-logits")["data"]
    assert {trace["line"]["dash"] for trace in logits} == {"solid", "dot", "dash"}
    assert len(logits) == 3 * 3 * (5 + 1)
    noise = page.named("game-noise")["data"]
    assert {trace["legendgroup"] for trace in noise} == {"m2"}
    assert page.named("game-signal")["layout"]["shapes"][0]["y0"] == 0.6
    assert "m0" in {trace["legendgroup"] for trace in page.named("steps-modes")["data"]}
    assert page.named("steps-modes")["layout"]["shapes"][0]["y0"] == 25
    names = [attrs["id"] for tag, attrs in page.tags if tag == "figure" and "id" in attrs]
    assert "plot-loss" not in names
    assert "No power spectra were measured" not in page.text


def test_each_methods_worst_seed_is_drawn(page, experiment):
    baseline = load(experiment).methods[0]
    assert worst_run(baseline).seed == 0
    shown = page.named("points-0")["data"]
    assert len(shown[0]["x"]["bdata"] if isinstance(shown[0]["x"], dict) else shown[0]["x"]) > 0
    assert "baseline, seed 0: its worst of 5" in page.text
    bars = page.named("mode-histogram")["data"]
    assert [trace["type"] for trace in bars] == ["bar"] * 3


def test_what_was_noticed_is_no_failure(page):
    assert "! less realistic adaptive_noise, seed 1, step 1500: high-quality share fell" in page.text
    assert "The guard caught nothing" in page.text


def test_a_game_that_broke_down_counts_as_failed(page):
    assert re.search(r"baseline 5 of 5 1 of 5 3\.6 % to 62 % 2 \(10 in all\)", page.text)
    assert "largest stable learning rate" not in page.text


def test_a_lone_run_knows_its_task(tmp_path, gans):
    run = gans.write_gan_run(tmp_path / "run", 22, 1, noise=True)
    write_json(run / "job.json", {"config": read_json(run / "config.json")})  # as the runs of a comparison have it
    (run / "config.json").unlink()
    page = _Page(write_report(run))
    assert page.named("game-signal")["layout"]["shapes"][0]["y0"] == 0.6
    assert "one training run on 90 000 points" in page.text
    assert "In part: 3 of 25 modes are missing" in page.text
    assert "Ours: 2500 samples of one run." in page.text
    assert "Share of samples within 3 standard deviations" in page.text
    assert "Samples of" not in page.text


def test_images_have_pictures_and_classes_a_curve(tmp_path, gans, write_experiment):
    run = gans.write_gan_run(tmp_path / "run", 25, 1)
    gans.load_synthetic().write_grid(run / "samples" / "final.png", np.random.default_rng(0), 5)
    save_file({"samples": np.zeros((4, 3, 8, 8), np.float32)}, run / "samples.safetensors")
    write_json(run / "data.json", {"source": "stacked-digits", "count": 900, "shape": [3, 8, 8], "classes": 1000})
    counts = [3] * 500 + [0] * 500
    perfect = {"modes": {"mean": 777.0, "sd": 13.0}, "reverse_kl": {"mean": 0.37, "sd": 0.02}}
    write_json(run / "curves.json", {"modes": {"counts": counts, "samples": 1500}, "perfect": perfect})
    write_json(run / "measures.json", {"modes": 500.0, "reverse_kl": 0.69, "fid": 3.0})
    page = _Page(write_report(run))
    assert "In part: 277 of 1000 classes are missing" in page.text
    assert len([attrs for tag, attrs in page.tags if tag == "img"]) == 1
    curve = page.named("mode-histogram")
    assert curve["layout"]["yaxis"]["type"] == "log"
    assert "1000 classes" in page.text


@pytest.mark.parametrize("broken", ["samples.safetensors", "curves.json", "measures.json", "data.json"])
def test_broken_files_are_named_and_the_rest_is_shown(broken, tmp_path, gans):
    run = gans.write_gan_run(tmp_path / "run")
    (run / broken).write_text('{"modes": {"counts": [1, "x", null]}, "perfect": [3]' + "}" * (broken == "curves.json"))
    page = _Page(write_report(run))
    assert "The game" in page.text
    assert broken == "curves.json" or f"{broken} could not be read" in page.text


def test_an_experiment_without_runs_is_a_page(tmp_path, experiment):
    write_json(tmp_path / "experiment.json", read_json(experiment / "experiment.json"))
    page = _Page(write_report(tmp_path))
    assert "No run has been measured yet." in page.text
