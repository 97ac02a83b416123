"""The page of an inspection, from its JSON alone."""

import re

import pytest

from lsdr.report.inspection.multiples import multiples
from lsdr.report.inspection.page import write_inspection_page
from lsdr.report.inspection.rows import table


def layer(name="down_blocks.0.to_q.weight", **values):
    return {
        "name": name, "block": "down_blocks.0",
        "shape": [8, 4], "kind": "linear", "operator": "reshape", "sigma_max": 2.0, "stable_rank": 3.0,
        "effective_rank": 3.5, "unknown": [], "spectrum": [2.0, 1.0, 0.5, 0.0], **values,
    }  # fmt: skip


def inspection(layers, findings=()):
    return {"layers": layers, "findings": list(findings), "skipped": [], "file": {"path": "model.safetensors"}}


def test_findings_stand_before_the_plots(tmp_path):
    finding = {
        "layer": "a", "kind": "spectral_norm_outlier", "severity": "warning", "text": "a: 31x its peers",
        "evidence": {"ratio": 31.0, "peers": ["b", "c"]}, "false_positive_rate": {"per_model": 0.02},
        "page": "docs/findings.md#spectral_norm_outlier",
    }  # fmt: skip
    page = write_inspection_page(inspection([layer()], [finding]), tmp_path / "page.html").read_text()
    words = re.sub(r"<script>.*?</script>", "", page, flags=re.S)
    assert words.index("31x its peers") < words.index("Every layer, by depth")
    assert "per model 0.02" in words
    assert "docs/findings.md#spectral_norm_outlier" in words


def test_no_finding_is_said(tmp_path):
    page = write_inspection_page(inspection([layer()]), tmp_path / "page.html").read_text()
    assert "no layer stands out from its peers" in page


def test_text_of_a_file_cannot_be_code(tmp_path):
    evil = "</script><img src=x onerror=alert(1)>"
    page = write_inspection_page(inspection([layer(evil, unknown=[evil])]), tmp_path / "page.html").read_text()
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page


@pytest.mark.parametrize(
    "values", [{}, {"sigma_max": None, "spectrum": []}, {"sigma_max": 0.0, "spectrum": [0.0, 0.0]}]
)
def test_layers_without_numbers_are_rows_all_the_same(tmp_path, values):
    bare = {"name": "a", "shape": [2, 2]}
    page = write_inspection_page(inspection([{**bare, **values}]), tmp_path / "page.html").read_text()
    assert '<th scope="row">a</th>' in page
    assert "<polyline" not in page


def test_columns_without_numbers_are_left_out():
    columns, rows = table([layer(condition_number=None), layer("b", sigma_max=None)])
    assert [column.label for column in columns] == ["σ max", "stable rank", "effective rank"]
    assert [row.cells[0].text for row in rows] == ["2", "—"]
    assert rows[1].cells[0].value == ""


def test_small_spectra_are_drawn_by_block_from_largest_to_smallest():
    ((block, (small,)),) = multiples([layer()])
    assert (block, small.short) == ("down_blocks.0", "to_q")
    heights = [float(point.split(",")[1]) for point in small.points.split()]
    assert heights == sorted(heights)
    assert heights[-1] == 42  # a zero lies on the floor


def test_plots_mark_what_a_convolution_can_amplify(tmp_path):
    page = write_inspection_page(
        inspection([layer(kind="conv2d", convolution_upper=6.0)]), tmp_path / "page.html"
    ).read_text()
    assert '"y":[2.0,6.0,null]' in page.replace(" ", "")
