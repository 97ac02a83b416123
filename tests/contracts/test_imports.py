"""What importing costs: nothing heavy until it is used."""

import subprocess
import sys

import pytest


def _loaded(statement):
    heavy = "('torch', 'numpy', 'tyro', 'plotly')"
    code = f"import sys\n{statement}\nprint(' '.join(name for name in {heavy} if name in sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def test_import_lsdr_is_empty():
    assert _loaded("import lsdr") == []


@pytest.mark.parametrize(
    "module",
    [
        "lsdr.runs",
        "lsdr.report.report",
        "lsdr.experiments.methods",
        "lsdr.experiments.summary",
        "lsdr.training.config",
        "lsdr.diffusion.config",
        "lsdr.gan.config",
        "lsdr.experiments.gan_methods",
        "lsdr.cli.main",
    ],
)
def test_no_torch(module):
    assert "torch" not in _loaded(f"import {module}")


@pytest.mark.parametrize("words", [["--help"], ["train", "diffusion", "--help"], ["compare", "gan", "--help"]])
def test_help_needs_no_torch(words):
    code = (
        f"from lsdr.cli.main import main\ntry:\n    main({words!r})\nexcept SystemExit as end:\n    assert not end.code"
    )
    assert "torch" not in _loaded(code)


def test_public_names_are_there_and_documented():
    import lsdr

    assert sorted(lsdr.__all__) == lsdr.__all__
    for name in lsdr.__all__:
        assert getattr(lsdr, name).__doc__, name
        assert name in dir(lsdr)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        lsdr.nonsense  # noqa: B018
