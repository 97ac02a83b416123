"""`lsdr inspect --gan`."""

import json

import pytest

from lsdr.cli import inspect_gan_view
from lsdr.cli.inspect import Inspect
from lsdr.cli.main import main
from lsdr.gan.mixtures import MIXTURES


def lsdr(*words):
    with pytest.raises(SystemExit) as end:
        main(["inspect", *map(str, words)])
    return end.value.code


@pytest.fixture
def collapsed(monkeypatch):
    """A run whose generator knows three of eight modes."""
    from lsdr.gan import inspect as inspecting

    ring = MIXTURES["ring"]
    train, heldout = ring.sample(600), ring.sample(200)

    def seen(file, *, data, samples, progress):
        progress("sampling", 0, 1, "")
        return inspecting.inspect_generator(
            lambda z: ring.means[(z[:, 0] > 0).long() + (z[:, 1] > 0).long()] + ring.std * z[:, 2:],
            4, train, heldout, mixture=ring, samples=samples or 400,
        )  # fmt: skip

    monkeypatch.setattr(inspecting, "inspect_gan", seen)


def test_the_answer_is_shown_written_and_judged(collapsed, tmp_path, capsys):
    page, file = tmp_path / "page.html", tmp_path / "found.json"
    assert lsdr("--gan", "run", "--html", page, "--json", file, "--fail-on", "mode_collapse", "--samples", "300") == 1
    out, err = capsys.readouterr()
    told = " ".join(out.split())
    assert "Is this mode collapse? Yes, this is mode collapse: 3 of 8 modes hold 100 % of the samples" in told
    assert "[mode_collapse]" in told
    assert "Modes with a sample 3 of 8 8" in told
    assert "(0, -1) · 0.0 % data 12.5 %" in told
    assert f"written: {page}" in out
    assert "1 finding of what --fail-on mode_collapse names" in err
    found = json.loads(file.read_text())
    assert (found["samples"], found["modes"]["captured"]) == (300, 3)
    assert "Yes, this is mode collapse" in page.read_text()


def test_standard_output_is_clean_json(collapsed, tmp_path, capsys):
    assert lsdr("--gan", "run", "--json", "-", "--html", tmp_path / "page.html", "--fail-on", "memorises") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["answer"].startswith("Yes")
    assert "written: " in err
    assert (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--gan", "--operator"], "give one of them"),
        (["--gan", "--base", "b.safetensors"], "--base is for layers and does nothing with --gan"),
        (["--gan", "--levels", "3"], "--levels needs --operator, which looks at a diffusion model's denoising step"),
        (["--samples", "100"], "--samples needs --gan, which looks at a generator"),
        (["--operator", "--samples", "100"], "--samples needs --gan"),
        (["--data", "digits"], "--data needs --operator or --gan"),
        (["--gan", "--samples", "3"], "--samples must be 20 or more"),
        (["--gan", "--fail-on", "zero_layer"], "mode_collapse"),
        (["--gan", "--csv", "a.csv"], "--csv is for layers"),
    ],
)
def test_options_that_do_not_go_together_are_refused_before_anything_is_measured(words, told, monkeypatch, capsys):
    for name in ("_inspect", "_inspect_operator", "_inspect_gan"):
        monkeypatch.setattr(Inspect, name, lambda self: pytest.fail("measured"))
    assert lsdr("run", *words) == 2
    assert told in capsys.readouterr().err


def test_what_is_no_run_is_refused_in_a_sentence(tmp_path, capsys):
    assert lsdr("--gan", tmp_path / "none") == 2
    assert "give a run of `lsdr train gan`, or a folder of generated images" in capsys.readouterr().err


@pytest.mark.parametrize("width", [60, 100])
def test_a_narrow_terminal_keeps_what_matters(width, monkeypatch, capsys):
    monkeypatch.setattr(inspect_gan_view, "_WIDTH", width)
    modes = {"kind": "class", "total": 2, "counts": [9, 0], "expected": [0.5, 0.5], "captured": 1, "names": ["a", "b"]}
    inspect_gan_view.show_gan({
        "source": "a\x1b[2J", "answer": "Yes, " + 20 * "very ", "samples": 12000, "modes": modes,
        "findings": [{"severity": "error", "kind": "one_image", "message": "same " * 30}],
        "memorisation": {"copies": 0.5, "nearest": [{"sample": 3, "train": "dog\x1b.png", "distance": 0.1}]},
    })  # fmt: skip
    told = capsys.readouterr().out
    assert "\x1b[2J" not in told
    assert "12 000 samples" in told
    assert "Classes with a sample" in told
    assert "dog" in told
    assert max(map(len, told.splitlines())) <= width


def test_nothing_at_all_is_shown_as_that(capsys):
    inspect_gan_view.show_gan({})
    assert "Is this mode collapse?" in capsys.readouterr().out
