"""The pages of GANs in a real browser: whole, quiet, readable on a phone, in the dark and without scripts."""

import importlib.util
from pathlib import Path

import pytest

_EVIL = "</script><img src=x onerror=console.error(1)>"


def _module(name):
    path = Path(__file__).parents[1] / "report" / f"{name}.py"
    specification = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A comparison on points, a generator of images and one of points."""
    from PIL import Image

    from lsdr.report.gan.page import write_gan_page
    from lsdr.report.report import write_report

    folder = tmp_path_factory.mktemp("gans")
    gans, found = _module("synthetic_gan"), _module("test_gan_page").found
    rows = [[0.1 * place, -0.1 * place] for place in range(40)]
    points = {"samples": rows, "data": rows, "paths": [rows[:9]], "mixture": {"means": rows[:3], "std": 0.01}}
    pictures = {name: Image.new("RGB", (400, 400)) for name in ("samples", "data", "nearest", "interpolation")}
    many = gans.write_gan_experiment(folder / "many", seeds=2, methods=("baseline", "evil", "c"))
    return {
        "report": write_report(many),
        "images": write_gan_page(found(answer=_EVIL), pictures, folder / "images.html"),
        "points": write_gan_page(found(points=points, shape=[2]), {}, folder / "points.html"),
    }  # fmt: skip


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize(("name", "least"), [("report", 18), ("images", 2), ("points", 5)])
def test_page_is_whole(pages, visit, name, least, width):
    page = visit(pages[name], width)
    plots = page.evaluate(
        "[...document.querySelectorAll('.plot')].map(plot =>"
        " [plot.querySelectorAll('.trace').length, plot.getBoundingClientRect().right])"
    )
    assert len(plots) >= least
    assert all(traces and right <= width for traces, right in plots), plots
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert page.locator("img").count() == (4 if name == "images" else 0)
    assert page.trouble == []


def test_a_legend_hides_what_it_names(pages, visit):
    page = visit(pages["report"], 1280)
    figure = page.locator("#plot-points-0")
    before = figure.locator(".trace").count()
    figure.get_by_role("button", name="samples").click()
    assert 0 < figure.locator(".trace").count() < before
    assert page.trouble == []


def test_dark_ground_keeps_the_modes_readable(pages, visit):
    page = visit(pages["points"], 1280, color_scheme="dark")
    ink = page.evaluate("getComputedStyle(document.body).color")
    lines = "[...document.querySelectorAll('#plot-points-samples .js-line')].map(x => getComputedStyle(x).stroke)"
    assert ink in page.evaluate(lines)


def test_reads_without_scripts(pages, visit):
    page = visit(pages["images"], 390, java_script_enabled=False)
    assert page.get_by_role("heading", name="Is this mode collapse?").is_visible()
    assert page.locator(".found .chip").first.is_visible()
    assert page.locator("section[aria-labelledby=numbers] tbody tr").count() >= 8
