"""`lsdr inspect --operator` as a user types it: on a run trained for a few steps, and on what it cannot use."""

import json
import os
import subprocess
import sys

import pytest

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
SMALL = "--data digits --limit 200 --steps 4 --batch-size 4 --samples 4 --sampler-steps 3 --heldout-images 8 "
SMALL += (
    "--train-images 10 --sensitivity-images 1 --lyapunov-images 0 --operator-images 0 --extractor-steps 1 --trackers"
)


def lsdr(*words, **options):
    command = [sys.executable, "-m", "lsdr", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=280, **options)


def refused(*words, capsys):
    from lsdr.cli.main import main

    with pytest.raises(SystemExit) as end:
        main(["inspect", *map(str, words)])
    assert end.value.code == 2
    return capsys.readouterr().err


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "digits"
    result = lsdr("train", "diffusion", "--out", folder, *SMALL.split())
    assert result.returncode == 0, result.stderr
    return folder


def test_a_run_is_shown_written_and_judged(run, tmp_path):
    out = {kind: tmp_path / f"out.{kind}" for kind in ("json", "html")}
    words = [each for kind, path in out.items() for each in (f"--{kind}", path)]
    small = ("--images", "2", "--levels", "3", "--fail-on", "warning")
    result = lsdr("inspect", run, "--operator", *small, *words)
    # A network of four steps takes away no noise: that is a warning.
    assert result.returncode == 1, result.stderr
    assert "Findings" in result.stdout
    assert "largest μ" in result.stdout
    assert "Lyapunov exponents" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= max(100, len(str(out["json"])) + 10)
    found = json.loads(out["json"].read_text())
    assert len(found["levels"]) == 3
    assert found["images"] == 2
    assert "warning" in {each["severity"] for each in found["findings"]}
    page = out["html"].read_text()
    for name in ("eigenvalues", "density", "calibration", "lyapunov"):
        assert f'id="plot-operator-{name}"' in page
    assert 'id="plot-power"' in page


def test_standard_output_is_clean_json(monkeypatch, capsys):
    from lsdr.cli.inspect import Inspect
    from lsdr.cli.main import main

    found = {"levels": [], "findings": [{"severity": "note", "kind": "expanding_step", "message": "grows"}]}
    monkeypatch.setattr(Inspect, "_inspect_operator", lambda self: found)
    with pytest.raises(SystemExit) as end:
        main(["inspect", "run", "--operator", "--json", "-", "--fail-on", "expanding_step"])
    assert end.value.code == 1
    assert json.loads(capsys.readouterr().out) == found


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--data", "digits"], "--data needs --operator"),
        (["--images", "4", "--levels", "4"], "--images, --levels needs --operator"),
        (["--prediction", "v"], "--prediction needs --operator"),
        (["--operator", "--base", "b.safetensors"], "--base is for layers"),
        (["--operator", "--layers", "*attn*", "--exact"], "--exact, --layers is for layers"),
        (["--operator", "--csv", "out.csv"], "--csv is for layers"),
        (["--operator", "--images", "0"], "--images must be 1 or more"),
        (["--operator", "--levels", "1"], "--levels must be 2 or more"),
        (["--operator", "--fail-on", "zero_layer"], "--fail-on takes error, warning, "),
        (["--fail-on", "expanding_step"], "--fail-on takes error, warning, "),
        (["--operator", "--html", "/"], "--html takes a file"),
    ],
)
def test_options_that_do_not_go_together_are_refused_before_anything_is_measured(words, told, monkeypatch, capsys):
    from lsdr.cli.inspect import Inspect

    for name in ("_inspect", "_inspect_operator"):
        monkeypatch.setattr(Inspect, name, lambda self: pytest.fail("measured"))
    assert told in refused("run", *words, capsys=capsys)


@pytest.mark.parametrize("kind", ["missing", "empty", "file"])
def test_what_is_no_run_is_refused_in_a_sentence(kind, tmp_path, capsys):
    path = tmp_path / kind
    if kind == "empty":
        path.mkdir()
    elif kind == "file":
        path.write_text("hello")
    told = refused(path, "--operator", capsys=capsys)
    assert told.startswith("lsdr: ")
    assert str(path) in told
    assert "run of" in told
    assert "diffusers folder" in told


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("says nothing of it; pass images, as data=...", "pass images, as --data DATA"),
        ("Pass prediction='v', or correct it", "Pass --prediction v, or correct it"),
        ("pass prediction= (epsilon, v)", "pass --prediction (epsilon, v)"),
    ],
)
def test_what_the_library_asks_for_is_said_in_options(message, told, tmp_path, monkeypatch, capsys):
    from lsdr.diffusion import inspect_operator

    def refuse(*_, **__):
        raise ValueError(message)

    monkeypatch.setattr(inspect_operator, "inspect_operator", refuse)
    (tmp_path / "config.json").write_text("{}")
    assert told in refused(tmp_path, "--operator", capsys=capsys)


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_narrow_terminal_keeps_what_matters(width, monkeypatch, capsys):
    from lsdr.cli import inspect_operator_view

    monkeypatch.setattr(inspect_operator_view, "_WIDTH", width)
    level = {
        "sigma": 0.0123, "sigma_next": 0.00123, "eigenvalues": {"median": [-0.00123], "low": [-0.00124],
        "high": [-0.00111]}, "gaussian": [0.00123], "gains": [0.00123], "time_scales": [0.00123],
        "smallest": -0.00123, "asymmetry": 0.00123, "mse": 0.00123, "trace": 0.00123,
    }  # fmt: skip
    inspect_operator_view.show_operator({"levels": [level], "source": "a\x1b[2J"})
    told = capsys.readouterr().out
    assert max(map(len, told.splitlines())) <= width
    header = next(line for line in told.splitlines() if line.lstrip().startswith("σ"))
    for name in ("largest μ", "gain", "τ", "gap dB"):
        assert name in header
    assert ("10–90 %" in header) == (width > 100)
    assert "…" not in header
    assert "\x1b" not in told
