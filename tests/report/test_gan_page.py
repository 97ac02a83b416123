"""The page of an inspected generator."""

import json
import re

import pytest
from PIL import Image

from lsdr.report.gan.page import facts, measured, write_gan_page

EVIL = "</script><b>evil</b>"


def found(**changes):
    """What an inspection of a generator of images finds."""
    return {
        "source": f"runs/{EVIL}", "model": "mlp", "data": "digits", "shape": [1, 8, 8], "samples": 2500, "train": 1600,
        "heldout": 190, "answer": "No sign of mode collapse.",
        "findings": [{"severity": "warning", "kind": "memorises", "message": EVIL}],
        "modes": {
            "kind": "cluster", "total": 3, "counts": [5, 0, 7], "expected": [0.3, 0.3, 0.4], "captured": 2,
            "names": ["cluster 1", EVIL, "cluster 3"], "reverse_kl": 0.5, "high_quality": None,
            "perfect": {"modes": {"mean": 3.0, "sd": 0.0}, "reverse_kl": {"mean": 0.01, "sd": 0.01}},
        },
        "fidelity": {"precision": 0.5, "recall": 0.4, "density": 0.9, "coverage": 0.3,
                     "reference": {"precision": 0.9, "recall": 0.8, "density": 1.0, "coverage": 0.95}},
        "memorisation": {"copies": 0.1, "heldout_copies": 0.0, "distance": 0.2, "heldout_distance": 0.3,
                         "nearest": [{"sample": 3, "train": EVIL, "distance": 0.01}]},
        "interpolation": {"largest": 0.1, "steps": 32},
        "overfitting": {"ratio": None},
        "layers": [{"name": f"{player}.net.{place}", "block": f"{player}.net", "sigma_max": 1.0 + place,
                    "spectrum": [2.0, 1.0], "kind": "linear"}
                   for player in ("generator", "discriminator") for place in range(3)],
        **changes,
    }  # fmt: skip


def plots(text):
    return [json.loads(each) for each in re.findall(r'<script type="application/json">(.*?)</script>', text, re.S)]


def test_everything_is_there_and_nothing_escapes(tmp_path):
    pictures = {name: Image.new("RGB", (40, 20)) for name in ("samples", "data", "nearest", "interpolation")}
    text = write_gan_page(found(), pictures, tmp_path / "page.html").read_text()
    assert EVIL not in text
    assert len(re.findall(r'<img src="data:image/png;base64,', text)) == 4
    assert len(plots(text)) >= 2
    for words in ("Is this mode collapse?", "No sign of mode collapse.", "2 of 3", "Nearest training examples"):
        assert words in text
    assert 'id="plot-shares"' in text
    assert 'id="plot-sigma-max"' in text
    groups = {trace["name"] for plot in plots(text)[1:2] for trace in plot["data"]}
    assert groups == {"generator", "discriminator"}


def test_points_are_plots(tmp_path):
    rows = [[0.1 * place, -0.1 * place] for place in range(20)]
    mixture = {"means": [[0, 0], [1, 1]], "std": 0.1}
    points = {"samples": rows, "data": rows, "paths": [rows[:5], rows[5:10]], "mixture": mixture}
    text = write_gan_page(found(points=points, shape=[2]), {}, tmp_path / "page.html").read_text()
    names = re.findall(r'id="plot-(points-\w+|paths)"', text)
    assert names == ["points-samples", "points-data", "paths"]
    assert '<img src="data' not in text
    assert facts(found(shape=[2]))[2] == "2 coordinates"


def test_numbers_stand_beside_what_real_ones_get():
    rows = {row.label: (row.value, row.ideal) for row in measured(found())}
    assert rows["Clusters with a sample"] == ("2 of 3", "3")
    assert rows["Precision"] == ("50\u202f%", "90\u202f%")
    assert rows["Density"] == ("0.900", "1")
    assert rows["Longest step of a latent path"] == ("10\u202f%", "3.12\u202f%")
    assert "Overfitting of the discriminator" not in rows
    assert "Samples at a mode" not in rows


@pytest.mark.parametrize("shape", ["empty", "many", "odd"])
def test_whatever_is_missing_is_left_out(shape, tmp_path):
    given = {
        "empty": {"answer": "", "findings": []},
        "many": found(modes={"kind": "class", "total": 100, "counts": [1] * 50 + [0] * 50, "expected": [0.01] * 100}),
        "odd": found(modes={"counts": [1, None], "expected": [1.0]}, points={"samples": [[1], [2, 3]]}, layers=None),
    }[shape]
    text = write_gan_page(given, {"unknown": Image.new("RGB", (4, 4))}, tmp_path / "page.html").read_text()
    assert "Is this mode collapse?" in text
    assert ('id="plot-shares"' in text) == (shape == "many")
    assert '<img src="data' not in text
