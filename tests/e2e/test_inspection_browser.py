"""The page of an inspection in a real browser: whole, quiet, searchable, sortable, on a phone too."""

import pytest

_EVIL = "</script><img src=x onerror=console.error(1)>"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    from lsdr.report.inspection.page import write_inspection_page

    layers = [
        {
            "name": f"down_blocks.{place // 10}.attentions.{place % 10}.to_q.weight",
            "block": f"down_blocks.{place // 10}",
            "shape": [64, 32], "kind": "conv2d" if place % 3 else "linear", "sigma_max": 1.0 + place,
            "stable_rank": 30.0 - place, "effective_rank": 20.0, "unknown": ["stride"] if place % 3 else [],
            "spectrum": [1.0 + place, 1.0, 0.1], "convolution_upper": 3.0 + 3 * place,
            "delta": {"relative": 0.01, "rank": 4.0, "intruder_dimensions": place % 2},
        }
        for place in range(30)
    ]  # fmt: skip
    layers[4]["name"] = _EVIL
    layers.append({"name": "proj_out.weight", "shape": [4, 4], "sigma_max": None, "spectrum": []})
    finding = {"layer": _EVIL, "kind": "spectral_norm_outlier", "severity": "warning", "text": f"{_EVIL}: 31x"}
    inspection = {"layers": layers, "findings": [finding], "skipped": [], "file": {"path": f"{_EVIL}.safetensors"}}
    return write_inspection_page(inspection, tmp_path_factory.mktemp("page") / "page.html")


@pytest.mark.parametrize("width", [390, 1280])
def test_page_is_whole(path, visit, width):
    page = visit(path, width)
    plots = page.evaluate("[...document.querySelectorAll('.plot')].map(plot => plot.querySelectorAll('.trace').length)")
    assert len(plots) >= 5
    assert all(plots)
    assert page.locator("polyline").count() == 30
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.trouble == []


def test_search_and_sort(path, visit):
    page = visit(path, 1280)
    rows = page.locator(".layers tbody tr:visible")
    page.get_by_role("searchbox").fill("blocks.1 to_q")
    assert rows.count() == 10
    assert page.locator("#shown").inner_text() == "10 of 31 layers"
    page.get_by_role("searchbox").fill("")
    norm = page.get_by_role("button", name="σ max")
    cell = ".layers tbody tr:first-child td[data-value]"
    norm.click()
    assert page.locator(cell).first.get_attribute("data-value") == "30"
    norm.click()
    assert page.locator(cell).first.get_attribute("data-value") == "1"
    norm.click()
    assert page.locator(".layers tbody tr").last.inner_text().startswith("proj_out")
    assert page.trouble == []


def test_reads_without_scripts(path, visit):
    page = visit(path, 390, java_script_enabled=False)
    assert page.locator(".found .chip").first.is_visible()
    assert page.locator(".layers tbody tr").count() == 31
    assert not page.locator("#search").is_visible()
