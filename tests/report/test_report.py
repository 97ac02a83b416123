"""The page is made from the files alone, whatever state they are in."""

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from lsdr.report.report import write_report
from lsdr.runs import append_record, read_json, write_json


class _Page(HTMLParser):
    """Elements, visible text and plots of a page."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.words, self.plots, self._open = [], [], [], []
        self.feed(path.read_text(encoding="utf-8"))

    @property
    def text(self):
        return " ".join(" ".join(self.words).replace("\u202f", " ").split())

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


def _named(page, name):
    """The figure with this name."""
    identities = [attrs["id"] for tag, attrs in page.tags if tag == "figure" and "id" in attrs]
    return page.plots[identities.index(f"plot-{name}")]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory, write_experiment):
    return write_experiment(tmp_path_factory.mktemp("runs") / "c10")


@pytest.fixture(scope="module")
def page(experiment):
    return _Page(write_report(experiment))


def test_says_what_was_compared_and_found(page):
    assert "Training with clip and decorrelation compared with baseline on 50 000 images of 32 × 32 pixels" in page.text
    assert "13 of 15 runs finished" in page.text
    assert "Each effect is the median over 5 pairs of runs" in page.text
    assert re.search(r"✓ better Held-out loss: 0\.07\d\d against 0\.07\d\d, −5\.0 % \(95 % interval −5", page.text)
    assert re.search(r"A step takes 1\.0\d times the time and 1\.10 times the memory of baseline", page.text)
    assert "Of 5 runs, 1 crashed and 1 diverged." in page.text


def test_order_of_the_page(page):
    headings = [attrs["id"] for tag, attrs in page.tags if tag == "h2"]
    assert headings == [
        "found", "verdict", "methods", "curves", "stability", "samples", "power", "operator", "layers",
        "sensitivity", "events", "data", "again", "described",
    ]  # fmt: skip


def test_headings_never_skip_a_level_and_tables_name_their_columns(page):
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    cells = [attrs for tag, attrs in page.tags if tag == "th"]
    assert cells
    assert all(attrs.get("scope") in ("col", "row", "rowgroup") for attrs in cells)
    pictures = [attrs for tag, attrs in page.tags if tag == "img"]
    assert len(pictures) > 10
    assert all(attrs["alt"] and attrs["src"].startswith("data:image/png;base64,") for attrs in pictures)
    assert all(attrs["aria-label"] for _, attrs in page.tags if attrs.get("role") == "img")


def test_every_subject_is_there(page):
    for words in (
        "out of memory", "the loss became nan at step 241", "up_blocks.1.resnets.0.conv1, forward", "cat/0077.png",
        "lsdr compare diffusion --data cifar10-train.parquet", "2.6.0", "dog/<b>0400</b>.png", "12 % to 77 %",
        "Denoising loss on images kept out of training", "0.003", "Seed 4", "SpectralDecorrelation",
    ):  # fmt: skip
        assert words.replace("cat/0077", "dog/0077") in page.text, words


def test_every_seed_is_drawn_with_its_median_and_its_end(page):
    traces = _named(page, "heldout-steps")["data"]
    assert len([trace for trace in traces if trace["mode"] == "lines"]) == 15 + 3
    assert len([trace for trace in traces if trace["mode"] == "markers"]) == 2
    assert sum("median" in trace["name"] for trace in traces) == 3


def test_methods_keep_their_colour(page):
    colours = {}
    for plot in page.plots:
        for trace in plot["data"]:
            drawn = {**trace.get("marker", {}), **trace.get("line", {})}.get("color")
            if trace.get("legendgroup", "").startswith("m") and drawn:
                colours.setdefault(trace["legendgroup"], set()).add(drawn)
    assert colours == {"m0": {"#0072B2"}, "m1": {"#D55E00"}, "m2": {"#009E73"}}


def test_log_axes_are_labelled_without_crowding(page):
    axis = _named(page, "power")["layout"]["xaxis"]
    assert axis["type"] == "log"
    assert axis["ticktext"] == ["0.05", "0.1", "0.2", "0.5"]


def test_axes_have_titles(page):
    untitled = [plot for plot in page.plots if not plot["layout"]["yaxis"]["title"]["text"]]
    assert untitled == [_named(page, "effects")]  # its labels name the measures
    assert _named(page, "power")["layout"]["xaxis"]["title"]["text"] == "spatial frequency (cycles per pixel)"
    assert _named(page, "heldout-seconds")["layout"]["xaxis"]["title"]["text"] == "training time (s)"
    assert _named(page, "seeds-lyapunov")["layout"]["yaxis"]["title"]["text"] == "per step"


def test_many_methods_do_not_fill_the_title(tmp_path, write_experiment):
    write_experiment(tmp_path, methods=dict.fromkeys(["baseline", *"abcd"], 1.0), seeds=1)
    assert "Training with 4 methods compared with baseline on" in _Page(write_report(tmp_path)).text


def test_too_few_seeds_show_nothing(tmp_path, write_experiment):
    text = _Page(write_report(write_experiment(tmp_path, seeds=2))).text
    assert "With 2 seeds nothing can be shown: by chance alone all would agree in one of 2 comparisons." in text
    assert "✓ better" not in text


def test_interrupted_experiment(tmp_path, write_experiment):
    write_experiment(tmp_path, seeds=2)
    (tmp_path / "summary.json").unlink()
    shutil.rmtree(tmp_path / "decorrelation" / "seed=1")
    for name in ("measures.json", "curves.json", "spectra.jsonl", "status.json"):
        (tmp_path / "clip" / "seed=0" / name).unlink()
    with (tmp_path / "baseline" / "seed=0" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 401, "loss": 0.0')  # the writer was killed here
    text = _Page(write_report(tmp_path)).text
    assert "Nothing is compared yet" in text
    assert "not started" in text
    assert "Medians over the runs finished so far" in text


def test_single_run(tmp_path, write_run):
    run = tmp_path / "one"
    write_run(run, place=2)
    write_json(run / "environment.json", {"python": "3.11.9", "command": "lsdr train diffusion --out one"})
    page = _Page(write_report(run))
    assert "decorrelation, seed 0: one training run" in page.text
    assert "lsdr train diffusion --out one" in page.text
    assert "Power-spectrum error" in page.text
    assert "verdict" not in [attrs.get("id") for tag, attrs in page.tags if tag == "h2"]
    assert len(_named(page, "loss")["data"]) == 1


@pytest.mark.parametrize("state", ["crashed", "diverged"])
def test_single_run_that_broke_down(tmp_path, state, write_run):
    write_run(tmp_path / "one", state=state)
    text = _Page(write_report(tmp_path / "one")).text
    assert f"The run is not complete: {state}." in text
    assert "No power spectra were measured." in text
    assert ("up_blocks.1.resnets.0.conv1" in text) == (state == "diverged")


@pytest.mark.parametrize("name", ["metrics.jsonl", "status.json"])
def test_run_that_has_only_begun(tmp_path, name):
    (tmp_path / name).write_text("")
    text = _Page(write_report(tmp_path)).text
    assert "No run has recorded a curve yet." in text
    assert "No layer spectra were recorded." in text


def test_broken_files_are_named(tmp_path, write_experiment):
    write_experiment(tmp_path, seeds=1)
    run = tmp_path / "baseline" / "seed=0"
    (run / "measures.json").write_text("{")
    (run / "metrics.jsonl").write_text("what\nis\nthis\n")
    (run / "curves.json").write_text('{"power_spectrum": [1], "lr_grid": {"lr": null, "loss": "x"}}')
    (run / "spectra.jsonl").write_text('{"kind": "weights", "layers": {"a": 3}}\n')
    (run / "samples" / "final.png").write_bytes((run / "samples" / "final.png").read_bytes()[:200])
    text = _Page(write_report(tmp_path)).text
    assert "measures.json could not be read" in text
    assert "metrics.jsonl: 3 lines are not JSON" in text
    assert "final.png is not a readable image" in text


def test_neither_run_nor_experiment(tmp_path):
    with pytest.raises(ValueError, match=r"no experiment\.json"):
        write_report(tmp_path)
    with pytest.raises(ValueError, match="not a folder"):
        write_report(tmp_path / "missing")


def test_hostile_names_stay_text(tmp_path, write_experiment):
    evil = "<img src=x onerror=alert(1)></script><script>alert(2)</script>%{x}"
    write_experiment(tmp_path, seeds=1)
    record = read_json(tmp_path / "experiment.json")
    shutil.move(tmp_path / "clip", tmp_path / evil.replace("/", "_"))
    record["methods"][1] |= {"name": evil.replace("/", "_"), "description": evil}
    record["command"] = record["data"]["source"] = record["data"]["problems"][0]["examples"][0] = evil
    record["measures"]["heldout_loss"] |= {"label": evil, "unit": evil, "description": evil}
    write_json(tmp_path / "experiment.json", record)
    append_record(
        tmp_path / "baseline" / "seed=0" / "events.jsonl",
        {"step": 1, "kind": evil, "module": evil, "message": evil, "names": [evil], "spectra": {evil: {evil: 1.0}}},
    )
    append_record(
        tmp_path / "baseline" / "seed=0" / "spectra.jsonl",
        {"step": 400, "kind": "features", "layers": {evil: {"effective_rank": 2.0, "values": [2.0, 1.0]}}},
    )
    page = _Page(write_report(tmp_path))
    assert all(attrs.get("src", "data:").startswith("data:") for tag, attrs in page.tags if tag == "img")
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert {attrs.get("type") for tag, attrs in page.tags if tag == "script"} == {None, "application/json"}
    assert len([1 for tag, attrs in page.tags if tag == "script" and not attrs]) == 2
    assert "<img src=x" in page.text
    plots = json.dumps(page.plots)
    assert "&lt;img src=x" in plots
    assert "<img" not in plots
    assert "%{x}" not in json.dumps([trace.get("name") for plot in page.plots for trace in plot["data"]])


def test_method_folder_outside_the_experiment_is_not_read(tmp_path, write_experiment, write_run):
    write_run(tmp_path / "secret" / "seed=0")
    write_experiment(tmp_path / "runs", seeds=1)
    record = read_json(tmp_path / "runs" / "experiment.json")
    record["methods"].append({"name": "../secret"})
    write_json(tmp_path / "runs" / "experiment.json", record)
    assert "lies outside the experiment" in _Page(write_report(tmp_path / "runs")).text


def test_long_runs_stay_small_and_keep_their_spikes(tmp_path):
    with (tmp_path / "metrics.jsonl").open("w") as file:
        for step in range(200_000):
            loss = 7777.0 if step == 123_456 else 0.5
            file.write(f'{{"step": {step}, "loss": {loss}, "grad_norm": 1.0, "penalty": 0.0}}\n')
    path = write_report(tmp_path)
    assert path.stat().st_size < 6_500_000
    page = _Page(path)
    top = 10 ** _named(page, "loss")["layout"]["yaxis"]["range"][1]
    assert top > 7777


def test_needs_no_torch():
    code = "import sys, lsdr.report.report; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_what_follows_the_planned_steps_is_set_apart(tmp_path, write_experiment):
    write_experiment(tmp_path, seeds=1)
    before = _named(_Page(write_report(tmp_path)), "weights-sigma-max")["data"]
    run = tmp_path / "decorrelation" / "seed=0"
    append_record(run / "metrics.jsonl", {"step": 500, "loss": 0.05, "seconds": 60.0})
    append_record(run / "spectra.jsonl", {"step": 500, "kind": "weights", "layers": {"conv_out": {"sigma_max": 99.0}}})
    shutil.copy(run / "samples" / "step-000200.png", run / "samples" / "step-000500.png")
    page = _Page(write_report(tmp_path))
    assert _named(page, "loss")["layout"]["shapes"][0]["x0"] == 400
    assert "shapes" not in _named(page, "heldout-steps")["layout"]
    assert "Beyond step 400 runs only go on to reach baseline's wall-clock." in page.text
    assert _named(page, "weights-sigma-max")["data"] == before
    assert "step 200" in page.text
    assert "step 500" not in page.text


def test_layers_come_in_the_order_of_the_data(tmp_path, write_run):
    write_run(tmp_path)
    (tmp_path / "spectra.jsonl").unlink()
    names = ["conv_in", "down_blocks.0", "up_blocks.0", "up_blocks.1", "mid_block.0", "conv_out"]
    layers = {name: {"sigma_max": 1.0} for name in names}
    append_record(tmp_path / "spectra.jsonl", {"step": 400, "kind": "weights", "layers": layers})
    trace = _named(_Page(write_report(tmp_path)), "weights-sigma-max")["data"][0]
    assert trace["text"] == ["conv_in", "down_blocks.0", "mid_block.0", "up_blocks.0", "up_blocks.1", "conv_out"]


def test_figures_cannot_end_their_script(experiment):
    text = write_report(experiment).read_text(encoding="utf-8")
    figures = re.findall(r'<script type="application/json">(.*?)</script>', text, flags=re.DOTALL)
    assert len(figures) > 15
    assert not any(character in figure for figure in figures for character in "<>")


def test_nothing_is_fetched(experiment):
    text = write_report(experiment).read_text(encoding="utf-8")
    own = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"""(src|href)=["'](?!data:)""", own)
    assert "url(" not in own
    assert "default-src 'none'" in own


def test_the_yardstick_of_feature_distances_is_named(tmp_path, write_experiment):
    write_experiment(tmp_path)
    (tmp_path / "extractor.json").write_text('{"task": "rotation", "accuracy": 0.38, "chance": 0.25}')
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "tells quarter turns apart with 38% accuracy" in page
    assert "guessing gives 25%" in page
