"""The page of an operator in a real browser: whole, quiet, readable on a phone, in the dark and without scripts."""

import importlib.util
from pathlib import Path

import pytest

_EVIL = "</script><img src=x onerror=console.error(1)>"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    from lsdr.report.operator.page import write_operator_page

    file = Path(__file__).parents[1] / "report" / "synthetic_operator.py"
    specification = importlib.util.spec_from_file_location("synthetic_operator", file)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    found = module.found(source=f"runs/{_EVIL}", why=_EVIL)
    found["findings"][0]["message"] = _EVIL
    return write_operator_page(found, tmp_path_factory.mktemp("page") / "page.html")


@pytest.mark.parametrize("width", [390, 1280])
def test_page_is_whole(path, visit, width):
    page = visit(path, width)
    plots = page.evaluate(
        "[...document.querySelectorAll('.plot')].map(plot =>"
        " [plot.querySelectorAll('.trace').length, plot.getBoundingClientRect().right])"
    )
    assert len(plots) == 10
    assert all(traces and right <= width for traces, right in plots), plots
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth === 24)")
    assert page.locator("img").count() == 3
    assert page.trouble == []


def test_legend_hides_the_band(path, visit):
    page = visit(path, 1280)
    figure = page.locator("#plot-operator-eigenvalues")
    before = figure.locator(".trace").count()
    figure.get_by_role("button", name="largest").click()
    assert 0 < figure.locator(".trace").count() < before
    assert page.trouble == []


def test_dark_ground_keeps_what_should_be_readable(path, visit):
    page = visit(path, 1280, color_scheme="dark")
    ink = page.evaluate("getComputedStyle(document.body).color")
    lines = "[...document.querySelectorAll('#plot-operator-gains .js-line')].map(x => getComputedStyle(x).stroke)"
    assert ink in page.evaluate(lines)


def test_reads_without_scripts(path, visit):
    page = visit(path, 390, java_script_enabled=False)
    assert page.locator(".found .chip").first.is_visible()
    assert page.get_by_text("upright stripes that repeat every 2 pixels").is_visible()
    assert page.locator("section[aria-labelledby=numbers] tbody tr").count() == 8
