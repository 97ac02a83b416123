"""Options of `lsdr reduce`, what it shows and what it writes; the reduction itself is made up."""

import csv
import importlib.util
import io
import json
import sys
from pathlib import Path

import pytest

from lsdr.cli import reduce, reduce_view
from lsdr.cli.main import main
from lsdr.cli.reduce import Reduce, as_options
from lsdr.cli.reduce_csv import write_steps


class Made:
    """A reduction as far as the command knows it."""

    def __init__(self, found):
        self.found = found

    def to_json(self):
        return dict(self.found)


@pytest.fixture(scope="module")
def synthetic():
    file = Path(__file__).parents[1] / "report" / "synthetic_reduction.py"
    specification = importlib.util.spec_from_file_location("synthetic_reduction", file)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def found(synthetic):
    return synthetic.found()


@pytest.fixture
def command(found, monkeypatch, capsys):
    """Run it; the arguments of the library, the status and both outputs come back."""

    def run(*words, given=None):
        asked = {}

        def reduce(self, options):
            asked.update(options)
            return Made(found if given is None else given)

        monkeypatch.setattr(Reduce, "_reduce", reduce)
        with pytest.raises(SystemExit) as end:
            main(["reduce", "houses.parquet", *map(str, words)])
        told = capsys.readouterr()
        return asked, end.value.code, told.out, told.err

    return run


def test_options_reach_the_library(command):
    words = "--target price --forced area,age --categorical floors --clusters street --ridge 2.5 --no-intercept "
    words += "--folds 7 --resamples 9 --engine ray --workers 3 --method qr --seed 4 --missing raise --rule p_value "
    words += "--p-value 0.01"
    asked, status, _, _ = command(*words.split())
    assert status == 0
    assert asked == {
        "forced": ("area", "age"), "categorical": ("floors",), "clusters": "street", "errors": "cluster",
        "weights": None, "weight_kind": "analytic", "intercept": False, "ridge": 2.5, "keep": None, "rule": "p_value",
        "p_value": 0.01, "folds": 7, "fold_column": None, "resamples": 9, "seed": 4, "method": "qr", "missing": "raise",
        "engine": "ray", "workers": 3,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {"rule": "one_se", "errors": "classical", "engine": "threads", "p_value": 0.05, "forced": ()}),
        (["--keep", "9"], {"rule": "size", "keep": 9}),
        (["--keep", "9", "--rule", "size"], {"rule": "size", "keep": 9}),
        (["--folds", "0"], {"rule": "bic", "folds": 0}),
        (["--frequency-weights", "count"], {"weights": "count", "weight_kind": "frequency"}),
        (["--weights", "w"], {"weights": "w", "weight_kind": "analytic"}),
        (["--clusters", "c", "--errors", "cluster"], {"errors": "cluster"}),
        (["--engine", "processes"], {"engine": "processes"}),
        (["--forced", '"lot, fenced",area'], {"forced": ("lot, fenced", "area")}),
    ],
)
def test_defaults_follow_from_each_other(words, expected, command):
    asked = command("--target", "price", *words)[0]
    assert asked | expected == asked


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("", "say what to explain: --target COLUMN"),
        ("--target y --formula y~a", "--formula names target, terms and factors"),
        ("--formula y~a --categorical a", "--formula names target, terms and factors"),
        ("--formula y~a --no-intercept", "write - 1 in it"),
        ("--target y --keep 3 --rule aic", "--keep 3 is a rule by itself"),
        ("--target y --keep -1", "--keep must be 0 or more, got -1"),
        ("--target y --rule size", "--rule size needs --keep"),
        ("--target y --p-value 0.1", "--p-value is the threshold of --rule p_value"),
        ("--target y --rule p_value --p-value 5", "--p-value must lie between 0 and 1, got 5"),
        ("--target y --weights a --frequency-weights b", "two readings of a column"),
        ("--target y --errors cluster", "--errors cluster needs --clusters"),
        ("--target y --rule cv --folds 0", "--rule cv needs cross-validation"),
        ("--target y --folds 1", "--folds must be 2 or more"),
        ("--target y --folds -2", "--folds must be 0 or more"),
        ("--target y --resamples -2", "--resamples must be 0 or more"),
        ("--target y --workers 0", "--workers must be 1 or more"),
        ("--target y --ridge -1", "--ridge must be 0 or more"),
        ("--target y --ridge nan", "--ridge must be 0 or more"),
        ("--target y --forced a,,b", "--forced takes names of columns"),
        ("--target y --html /", "--html takes a file"),
        ("--target y --csv -", "only --json - writes to standard output"),
        ("--target y --rule foo", "--rule must be one of one_se, cv, aic, bic, cp, p_value, size; got 'foo'"),
        ("--target y --errors HC9", "--errors must be one of classical, HC0, HC1, HC2, HC3, cluster; got 'HC9'"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_read(words, told, monkeypatch, capsys):
    monkeypatch.setattr(Reduce, "_reduce", lambda *_: pytest.fail("read"))
    with pytest.raises(SystemExit) as end:
        main(["reduce", "houses.parquet", *words.split()])
    assert end.value.code == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("option", ["json", "csv", "html"])
def test_a_folder_that_takes_no_file_is_refused_before_anything_is_read(option, tmp_path, monkeypatch, capsys):
    """Such as one on a read-only disk, whose permissions say nothing about that."""

    def full(dir):
        raise OSError(30, "Read-only file system", str(dir))

    monkeypatch.setattr(reduce, "TemporaryFile", full)
    monkeypatch.setattr(Reduce, "_reduce", lambda *_: pytest.fail("read"))
    with pytest.raises(SystemExit) as end:
        main(["reduce", "houses.parquet", "--target", "y", f"--{option}", str(tmp_path / "new" / "x")])
    assert end.value.code == 2
    told = capsys.readouterr().err
    assert f"--{option} {tmp_path}/new/x cannot be written: {tmp_path} takes no file (Read-only file system)" in told


def test_path_choice_and_both_t_are_shown(command):
    _, status, out, err = command("--target", "price")
    assert status == 0
    assert err == ""
    lines = out.splitlines()
    chosen = next(line for line in lines if line.startswith("►"))
    assert chosen.split()[1:5] == ["8", "bathrooms", "2.68", "93.373"]
    assert "8 of 10 terms kept" in out
    bathrooms = [line.split() for line in lines if line.startswith("bathrooms")][-1]
    assert bathrooms[:3] == ["bathrooms", "2.443", "2.68"]
    assert bathrooms[-2:] == ["0.946", "0.3451"]
    assert "are descriptive" in out
    assert "Note: Never entered: rooms (duplicate of bedrooms)." in out
    assert lines[-1].startswith("more: --html FILE")


def test_files_are_written_and_named(command, tmp_path, found):
    files = {kind: tmp_path / f"deep/out.{kind}" for kind in ("json", "csv", "html")}
    (tmp_path / "deep").mkdir()
    _, status, out, _ = command("--target", "price", *(word for kind in files for word in (f"--{kind}", files[kind])))
    assert status == 0
    assert out.count("written: ") == 3
    assert "--html FILE" not in out
    written = json.loads(files["json"].read_text())
    assert written["steps"] == found["steps"]
    assert written["source"] == "houses.parquet"
    assert 'id="plot-error"' in files["html"].read_text()
    assert len(files["csv"].read_text().splitlines()) == 12


def test_standard_output_is_clean_json(command, found):
    _, status, out, err = command("--target", "price", "--json", "-")
    assert status == 0
    assert err == ""
    assert json.loads(out)["chosen"] == found["chosen"]


def test_csv_has_a_row_a_step(found, tmp_path):
    write_steps(found, tmp_path / "steps.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "steps.csv").read_text())))
    assert [int(row["size"]) for row in rows] == list(range(10, -1, -1))
    assert [row["chosen"] for row in rows].index("1") == 2
    assert float(rows[0]["tvalues.area"]) == found["steps"][0]["tvalues"]["area"]
    assert float(rows[3]["params.location[hills]"]) == found["steps"][3]["params"]["location[hills]"]
    assert rows[2]["params.floors"] == rows[8]["t"] == rows[-1]["removed"] == ""
    assert list(rows[0])[:3] == ["size", "removed", "t"]


def test_csv_keeps_columns_whose_names_have_dots(tmp_path):
    steps = [{"size": 2, "params": {"a": 1.0, "a.b": 2.0}, "tvalues": {"a": 3.0, "a.b": 4.0}}]
    write_steps({"steps": steps}, tmp_path / "steps.csv")
    row = next(csv.DictReader(io.StringIO((tmp_path / "steps.csv").read_text())))
    assert row == {
        "size": "2", "chosen": "0", "params.a": "1.0", "params.a.b": "2.0", "tvalues.a": "3.0", "tvalues.a.b": "4.0"
    }  # fmt: skip


@pytest.mark.parametrize("width", [50, 60, 80, 100])
def test_a_narrow_terminal_keeps_what_matters(width, found, monkeypatch, capsys):
    monkeypatch.setattr(reduce_view, "_WIDTH", width)
    told = json.loads(json.dumps(found).replace("house_number", "house\\u001b[2Jnumber"))
    reduce_view.show_reduction(told | {"source": "a\x1b[2J"})
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= width
    assert "\x1b" not in out
    header = next(line for line in out.splitlines() if "goes next" in line)
    assert "held-out MSE" in header
    assert ("AIC" in header) == (width > 60)
    assert "…" not in header
    assert "split: t" in out


def test_a_long_path_is_shortened_around_the_choice(synthetic, capsys):
    reduce_view.show_reduction(synthetic.large(200))
    out = capsys.readouterr().out
    assert len(out.splitlines()) < 110
    assert out.count("…") > 2
    assert "► " in out
    assert "and 81 more columns" in out
    assert "100 000 rows" in out.replace("\u202f", " ")


def test_an_empty_result_is_shown(capsys):
    reduce_view.show_reduction({"steps": [], "chosen": {}})
    assert "There is no step." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("use method='qr'", "use --method qr"),
        ('pass errors="HC3", or clusters=...', "pass --errors HC3, or --clusters ..."),
        ("set fold_column=None; intercept=False", "set --fold-column None; --no-intercept"),
        ("weight_kind='frequency' needs whole numbers", "--frequency-weights needs whole numbers"),
        ("price=3 and --keep=2 stay", "price=3 and --keep=2 stay"),
    ],
)
def test_what_the_library_asks_for_is_said_in_options(message, told):
    assert as_options(message) == told


def test_the_library_is_called_and_its_errors_translated(monkeypatch, capsys):
    module = type(sys)("lsdr.regression.backward_elimination")

    def backward_elimination(source, target, *, features, progress, **options):
        progress(10, 100)
        progress(20, None)
        raise ValueError(f"{source} {target} {features}: pass missing='drop'")

    module.backward_elimination = backward_elimination
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with pytest.raises(SystemExit) as end:
        main(["reduce", "table.csv", "--target", "y", "--features", "a, b"])
    assert end.value.code == 2
    assert "lsdr: table.csv y ('a', 'b'): pass --missing drop" in capsys.readouterr().err


def test_the_page_is_made_from_the_json_again(found, tmp_path, capsys):
    path = tmp_path / "houses.json"
    path.write_text(json.dumps(found))
    with pytest.raises(SystemExit) as end:
        main(["report", str(path)])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"report: {tmp_path / 'houses.html'}\n"
    assert 'id="plot-error"' in (tmp_path / "houses.html").read_text()


@pytest.mark.parametrize(
    ("text", "name", "told"),
    [
        ("{}", "a.json", "has no steps"),
        ("[1]", "a.json", "has no steps"),
        ("size,t", "a.csv", "is not readable JSON"),
        ('{"steps": [{"size": 1}]}', "a.html", "is where the page would go"),
    ],
)
def test_a_file_that_is_no_reduction_is_refused(text, name, told, tmp_path, capsys):
    (tmp_path / name).write_text(text)
    with pytest.raises(SystemExit) as end:
        main(["report", str(tmp_path / name)])
    assert end.value.code == 2
    assert told in capsys.readouterr().err
    assert (tmp_path / name).read_text() == text
