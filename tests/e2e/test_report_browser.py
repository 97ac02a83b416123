"""The report in a real browser: nothing fetched, nothing in the console, every plot drawn, on a phone and on paper."""

import importlib.util
import re
from pathlib import Path

import pytest

_EVIL = "</script><img src=x onerror=console.error(1)>"


def _synthetic():
    path = Path(__file__).parents[1] / "report" / "synthetic.py"
    specification = importlib.util.spec_from_file_location("synthetic_runs", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The pages of an experiment, of a single run, and of an experiment with many methods that is not finished."""
    from lsdr.report.report import write_report
    from lsdr.runs import read_json, write_json

    folder = tmp_path_factory.mktemp("runs")
    _synthetic().write_experiment(folder / "many")
    record = read_json(folder / "many" / "experiment.json")
    record["command"] = record["methods"][1]["description"] = record["measures"]["sensitivity"]["label"] = _EVIL
    write_json(folder / "many" / "experiment.json", record)
    _synthetic().write_run(folder / "one", place=2)
    _synthetic().write_experiment(folder / "wide", methods={f"method_number_{n}": 1.0 for n in range(8)}, seeds=1)
    (folder / "wide" / "summary.json").unlink()
    return {name: write_report(folder / name) for name in ("many", "one", "wide")}


@pytest.mark.parametrize(("name", "width"), [("many", 390), ("many", 1280), ("one", 390), ("one", 1280), ("wide", 390)])
def test_page_is_whole(pages, visit, name, width):
    page = visit(pages[name], width)
    plots = page.locator(".plot")
    drawn = page.evaluate(
        "[...document.querySelectorAll('.plot')].map(plot =>"
        " [plot.querySelectorAll('.main-svg').length, plot.querySelectorAll('.trace').length,"
        " plot.getBoundingClientRect().right])"
    )
    assert plots.count() >= (10 if name == "one" else 15)
    assert all(pictures > 0 and traces > 0 and right <= width for pictures, traces, right in drawn), drawn
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert page.trouble == []


def test_legend_hides_a_method(pages, visit):
    page = visit(pages["many"], 1280)
    figure = page.locator("#plot-heldout-steps")
    before = figure.locator(".trace").count()
    button = figure.get_by_role("button", name="clip")
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert 0 < figure.locator(".trace").count() < before
    button.click()
    assert figure.locator(".trace").count() == before
    assert page.trouble == []


def test_dark_ground_keeps_text_and_data_readable(pages, visit):
    page = visit(pages["many"], 1280, color_scheme="dark")
    ink = page.evaluate("getComputedStyle(document.body).color")
    assert page.evaluate("getComputedStyle(document.querySelector('#plot-power .xtick text')).fill") == ink
    lines = "[...document.querySelectorAll('#plot-power .js-line')].map(line => getComputedStyle(line).stroke)"
    assert ink in page.evaluate(lines)


def test_works_without_scripts(pages, visit):
    page = visit(pages["many"], 390, java_script_enabled=False)
    assert page.locator(".verdicts .chip").first.is_visible()
    page.get_by_text("Every measure, at equal wall-clock").click()
    assert page.locator("details .verdicts .chip").first.is_visible()
    assert page.locator("img").first.is_visible()


def test_prints(pages, visit, tmp_path):
    page = visit(pages["many"], 1280, color_scheme="dark")
    file = tmp_path / "report.pdf"
    page.pdf(path=file, format="A4", print_background=True)
    assert len(re.findall(rb"/Type\s*/Page\b", file.read_bytes())) > 1
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 688, "height": 1000})  # A4 between margins of 14 mm
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.wait_for_function("[...document.querySelectorAll('.plot .main-svg')].every(svg => svg.clientWidth <= 640)")
    assert page.locator("details:not([open])").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 688
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(28, 34, 41)"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0
    assert page.trouble == []
