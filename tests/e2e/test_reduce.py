"""`lsdr reduce` as a user types it, on the example's houses; its page in a real browser, on a phone and in the dark."""

import csv
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lsdr.cli.main import main

# The houses, their reduction and the browser are made once.
pytestmark = pytest.mark.xdist_group("reduce")

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
EVIL = "</script><img src=x onerror=console.error(1)>"


def told(*words, capsys):
    """Run it in this process: status and both outputs, lines joined."""
    with pytest.raises(SystemExit) as end:
        main(["reduce", *words])
    captured = capsys.readouterr()
    return end.value.code, " ".join(captured.out.split()), captured.err


def lsdr(*words, cwd):
    command = [sys.executable, "-m", "lsdr", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=280, cwd=cwd)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the houses as Parquet and, thirty-six of them as CSV."""
    folder = tmp_path_factory.mktemp("houses")
    for words in ((), ("few.csv", "36")):
        script = [sys.executable, str(ROOT / "examples" / "houses.py"), *words]
        made = subprocess.run(script, capture_output=True, text=True, cwd=folder, timeout=120)
        assert made.returncode == 0, made.stderr
        assert "simulated" in made.stdout
    return folder


@pytest.fixture(scope="module")
def result(folder):
    words = "houses.parquet --target price --keep 9 --resamples 20 --json h.json --csv h.csv --html h.html"
    result = lsdr("reduce", *words.split(), cwd=folder)
    assert result.returncode == 0, result.stderr
    return result


@pytest.fixture(scope="module")
def found(result, folder):
    return json.loads((folder / "h.json").read_text())


def test_every_step_is_that_of_a_refit(found, folder):
    """Against statsmodels, on the table as another library reads it."""
    import pandas as pd
    import statsmodels.formula.api as smf

    table = pd.read_parquet(folder / "houses.parquet")
    assert [step["size"] for step in found["steps"]] == list(range(10, -1, -1))
    kept = [name for name in table if name != "price"]
    for step in found["steps"]:
        terms = [f"C({name})" if name == "location" else name for name in kept]
        fit = smf.ols(f"price ~ {' + '.join(terms) or '1'}", table).fit()
        told = {name.replace("C(location)[T.", "location["): value for name, value in fit.tvalues.items()}
        assert step["tvalues"] == pytest.approx(told, rel=1e-8)
        assert step["rss"] == pytest.approx(fit.ssr, rel=1e-10)
        if kept:
            tests = fit.wald_test_terms(scalar=True).table.drop("Intercept")
            weakest = tests["pvalue"].idxmax() if tests["pvalue"].max() > 0 else tests["statistic"].idxmin()
            assert f"{step['removed']}" == weakest.removeprefix("C(").removesuffix(")")
            kept.remove(step["removed"])


def test_the_noise_goes_first_and_nine_are_kept(found, result):
    first = found["steps"][0]
    assert first["removed"] == "house_number"
    assert found["chosen"]["size"] == 9
    assert "house_number" not in found["chosen"]["features"]
    assert found["chosen"]["rule"] == "size"
    assert "9 of 10 terms kept" in result.stdout
    assert result.stdout.count("written: ") == 3
    assert "are descriptive" in result.stdout


def test_csv_has_the_path(found, folder):
    with (folder / "h.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["removed"] for row in rows] == [step["removed"] or "" for step in found["steps"]]
    assert float(rows[0]["mse_heldout"]) == found["steps"][0]["mse_heldout"]


def test_csv_is_read_and_standard_output_is_clean(folder):
    words = "few.csv --target price --rule cv --folds 5 --forced area --json -"
    result = lsdr("reduce", *words.split(), cwd=folder)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    found = json.loads(result.stdout)
    assert found["n"] == 36
    assert found["steps"][-1]["size"] == 1
    assert "area" in found["steps"][-1]["params"]


def test_of_few_houses_the_error_falls_held_out_and_never_in_sample(folder, monkeypatch, capsys):
    """What the page in the documentation shows: dropping the weakest of ten features."""
    monkeypatch.chdir(folder)
    status, out, _ = told("few.csv", "--target", "price", "--json", "-", capsys=capsys)
    assert status == 0
    steps = json.loads(out)["steps"]
    assert steps[0]["removed"] == "house_number"
    assert steps[1]["mse_heldout"] < steps[0]["mse_heldout"] - 1
    assert (np.diff([step["rss"] for step in steps]) > 0).all()


def test_a_formula_names_target_and_terms(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    words = ["houses.parquet", "--formula", "price ~ area * garage + C(floors) + location", "--json", "-"]
    status, out, _ = told(*words, capsys=capsys)
    assert status == 0
    found = json.loads(out)
    assert found["steps"][0]["size"] == 5
    assert found["steps"][0]["removed"] == "area:garage"


@pytest.mark.parametrize(
    ("words", "sign"),
    [
        ("--clusters location", "standard errors: cluster"),
        ("--errors HC3", "standard errors: HC3"),
        ("--ridge 5", "ridge 5"),
        ("--no-intercept", "no intercept"),
        ("--method qr", "by QR"),
        ("--engine processes --workers 2", "from cross-products ·"),
    ],
)
def test_options_make_a_difference_that_is_said(words, sign, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    base = ["houses.parquet", "--target", "price", "--features", "area,age,house_number"]
    status, out, err = told(*base, *words.split(), capsys=capsys)
    assert status == 0, err
    assert sign in out


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["no.parquet", "--target", "price"], ["no.parquet"]),
        (["houses.parquet", "--target", "prise"], ["'prise'", "did you mean 'price'?"]),
        (["houses.parquet", "--target", "location"], ["'location'", "text"]),
        (["houses.parquet", "--target", "price", "--keep", "11"], ["11", "10"]),
        (["houses.parquet", "--target", "price", "--forced", "aria"], ["'aria'", "'area'"]),
        (["broken.csv", "--target", "price"], ["row 2", "'area'", "'many'", "`--categorical`"]),
        (["houses.parquet", "--formula", "price ~ aria"], ["'aria'"]),
        (["houses.parquet", "--formula", "price ~ (area"], ["price ~ (area"]),
    ],
)
def test_what_cannot_be_read_is_refused_in_a_sentence(words, parts, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    lines = Path("few.csv").read_text().splitlines()
    Path("broken.csv").write_text("\n".join([*lines[:2], "many" + lines[2][lines[2].index(",") :], *lines[3:]]))
    status, _, err = told(*words, capsys=capsys)
    assert status == 2
    assert err.startswith("lsdr: ")
    for part in parts:
        assert part in err


@pytest.fixture(scope="module")
def paths(found, folder):
    """The real page, and one of many terms with hostile names."""
    from lsdr.report.regression.page import write_regression_page

    file = ROOT / "tests" / "report" / "synthetic_reduction.py"
    specification = importlib.util.spec_from_file_location("synthetic_reduction", file)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    large = module.large(300)
    named = json.dumps(large).replace(json.dumps(large["steps"][-2]["removed"]), json.dumps(EVIL))
    hostile = json.loads(named) | {"target": EVIL, "notes": [EVIL], "source": EVIL}
    return {"houses": folder / "h.html", "large": write_regression_page(hostile, folder / "large.html")}


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize(("name", "plots"), [("houses", 6), ("large", 6)])
def test_page_is_whole(name, plots, width, paths, visit):
    page = visit(paths[name], width)
    drawn = page.evaluate(
        "[...document.querySelectorAll('.plot')].map(plot =>"
        " [plot.querySelectorAll('.trace, .heatmaplayer image').length, plot.getBoundingClientRect().right])"
    )
    assert len(drawn) == plots
    assert all(traces and right <= width for traces, right in drawn), drawn
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("img").count() == 0
    assert page.trouble == []


def test_legend_hides_a_column(paths, visit):
    page = visit(paths["houses"], 1280)
    figure = page.locator("#plot-tvalues")
    before = figure.locator(".trace").count()
    figure.get_by_role("button", name="lot").click()
    assert figure.locator(".trace").count() == before - 1
    assert page.trouble == []


def test_dark_ground_keeps_the_chosen_size_readable(paths, visit):
    page = visit(paths["houses"], 1280, color_scheme="dark")
    ink = page.evaluate("getComputedStyle(document.body).color")
    lines = "[...document.querySelectorAll('#plot-error .shapelayer path')].map(x => getComputedStyle(x).stroke)"
    assert ink in page.evaluate(lines)


def test_reads_without_scripts(paths, visit):
    page = visit(paths["houses"], 390, java_script_enabled=False)
    assert page.get_by_text("9 of 10 terms kept").is_visible()
    assert page.locator("section[aria-labelledby=steps] tbody tr").count() == 11
    assert page.locator("tr.chosen").count() == 1


@pytest.mark.parametrize("table", ["houses.parquet", "few.csv"])
def test_the_documentation_shows_what_is_printed(table, folder, monkeypatch, capsys):
    """Up to the last digit of a few numbers, which are the processor's."""
    monkeypatch.chdir(folder)
    page = (ROOT / "docs" / "how-to" / "reduce.md").read_text(encoding="utf-8")
    command = rf"\$ python [^\n]*\n\$ lsdr reduce {re.escape(table)} [^\n]*\n"
    block = re.search(rf"```text\n{command}(.*?)```", page, flags=re.S)
    with pytest.raises(SystemExit):
        main(["reduce", table, "--target", "price"])
    printed = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    shown = [" ".join(line.split()) for line in block[1].splitlines() if re.match(r"[►·]? +\d", line)]
    assert len(shown) >= 2
    for line in shown:
        assert any(other.startswith(line) for other in printed), line
