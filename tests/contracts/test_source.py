"""Promises about the source as text."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src" / "lsdr").rglob("*.py"))
PYTHON = [*SOURCES, *sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "benchmarks").glob("*.py"))]
TEXTS = [
    *PYTHON,
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").glob("*.py")),
    *[ROOT / name for name in ("README.md", "CHANGELOG.md", "Makefile", "pyproject.toml", ".ci/run")],
]


def _name(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_no_file_is_long(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_every_module_says_what_it_is(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_nothing_is_unpickled():
    # Tests may write a malicious pickle, to see that it is not read.
    for path in [path for path in PYTHON if "tests" not in path.relative_to(ROOT).parts]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
                assert not {"pickle", "dill", "joblib", "cloudpickle"} & {name.split(".")[0] for name in names}, path
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "np.load", "numpy.load"):
                options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                safe = {"torch.load": ("weights_only", "True"), "np.load": ("allow_pickle", "False")}
                key, value = safe[ast.unparse(node.func).replace("numpy", "np")]
                assert options.get(key) == value, f"{path}:{node.lineno}"


def test_no_comparison_is_computed_and_dropped():
    """A test that compares and does not assert cannot fail."""
    for path in PYTHON:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Expr):
                continue
            assert not isinstance(node.value, ast.Compare), f"{path}:{node.lineno}"
            if isinstance(node.value, ast.Call):
                assert ast.unparse(node.value.func) not in ("torch.allclose", "np.allclose", "torch.equal"), path


def test_no_work_is_left_for_later():
    marker = re.compile("TO" + "DO|FIX" + "ME|X" + "XX")
    for path in TEXTS:
        if path.suffix != ".png":
            assert not marker.search(path.read_text(encoding="utf-8")), path


def test_no_address_of_another_server_and_no_path_of_one_machine():
    pattern = re.compile(r"/(?:wo" + r"rk|ro" + r"ot|ho" + r"me)/|py" + r"pi\.org|python" + r"hosted|npm" + r"js\.")
    for path in TEXTS:
        if path.suffix != ".png":
            assert not pattern.search(path.read_text(encoding="utf-8")), path
