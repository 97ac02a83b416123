import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lsdr.representation.views.catalogue import DEFAULTS, STRENGTHS, TRANSFORMATIONS
from lsdr.representation.views.parse import kind_strength, parse


def plain(inputs):
    return inputs


def names(spec, modality="image", **options):
    return [str(part) for part in parse(spec, modality, **options)]


def test_names_have_the_strength_given_or_their_own():
    assert names("rotation:30, blur ,noise:1e-2") == ["rotation:30", "blur:1", "noise:0.01"]


def test_nothing_and_default_stand_for_the_default():
    for spec in ("", "default", [], ["default"]):
        assert names(spec) == names(DEFAULTS["image"])
    assert names("default,flip", default="blur:2") == ["blur:2", "flip:0.5"]


def test_a_list_may_hold_functions_and_several_names():
    parts = parse(["rotation:30,flip", plain], "image")
    assert [part.name.rpartition(":")[2] for part in parts] == ["rotation", "flip", "plain"]
    assert parts[2].function is plain
    assert parts[2].strength is None


def test_a_path_names_a_function():
    (part,) = parse("math:sqrt", "text")
    assert part.function is math.sqrt
    assert str(part) == "math:sqrt"


def test_a_module_in_the_working_folder_is_found(tmp_path, monkeypatch):
    (tmp_path / "my_own_views.py").write_text("def turn(inputs):\n    return inputs\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert parse("blur,my_own_views:turn", "image")[1].function.__name__ == "turn"


@pytest.mark.parametrize(
    ("spec", "modality", "expected"),
    [
        ("rotatoin:30", "image", "no transformation 'rotatoin'; close: rotation. There are for image data: lighting"),
        ("rotation:30", "text", "rotation is for image data, and this is text data. There are .* token_dropout"),
        ("noise", "text", "noise is for image and table data"),
        ("rotation:far", "image", "expected rotation:NUMBER, such as rotation:15, got rotation:far"),
        ("rotation:", "image", "expected rotation:NUMBER"),
        ("rotation:0", "image", "must be above 0 and at most 180 degrees, got 0; leave rotation out"),
        ("rotation:181", "image", r"rotation \(turned by up to ± s\) must be .* at most 180 degrees, got 181"),
        ("rotation:nan", "image", "above 0 and at most 180 degrees, got nan"),
        ("flip:-1", "image", "must be above 0 and at most 1, got -1$"),
        ("blur,,flip", "image", "between every two commas"),
        ("no_such_module:f", "image", "no module 'no_such_module' for 'no_such_module:f': install it"),
        ("rotatoin:f", "image", "or did you mean rotation, with a number as its strength"),
        ("math:no_such", "image", "expected package.module:function, got 'math:no_such'"),
        ("blur", "sound", "expected a modality among image, text, table, got 'sound'"),
    ],
)
def test_what_is_wrong_is_told(spec, modality, expected):
    with pytest.raises(ValueError, match=expected):
        parse(spec, modality)


def test_what_is_no_transformation_at_all():
    with pytest.raises(TypeError, match=r"names of transformations and functions of your own; math:pi is 3.14"):
        parse("math:pi", "image")


@pytest.mark.parametrize("modality", TRANSFORMATIONS)
def test_the_catalogue_is_sound(modality):
    for name, kind in TRANSFORMATIONS[modality].items():
        assert kind_strength(name, None, modality) == kind.default
        assert all(kind_strength(name, strength, modality) == strength for strength in kind.sweep)
        assert list(kind.sweep) == sorted(set(kind.sweep))
        assert re.search(r"\bs\b", kind.description) or name in ("dropout",)
    assert names("default", modality) == names(DEFAULTS[modality], modality)
    assert set(STRENGTHS[modality]) == {name for name in TRANSFORMATIONS[modality] if name != "dropout"}


def test_neither_names_nor_lsdr_need_torch_or_kornia():
    code = "import sys, lsdr.representation.views.parse as p; p.parse('default', 'image')"
    code += "; assert 'torch' not in sys.modules"
    code += "; import lsdr, lsdr.representation.views.open; assert 'kornia' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_page_lists_what_there_is():
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "views.md").read_text(encoding="utf-8")
    for modality, kinds in TRANSFORMATIONS.items():
        assert f"Default: `{DEFAULTS[modality]}`" in page
        for name, kind in kinds.items():
            default = f"{kind.default:g} {kind.unit}".strip()
            assert f"| `{name}` | {kind.description} | {default} | {kind.largest:g} |\n" in page
