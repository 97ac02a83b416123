"""`lsdr inspect` as a user types it: in a process, on files good and bad."""

import csv
import json
import os
import re
import subprocess
import sys
import zipfile

import pytest
import torch
from safetensors.torch import save_file

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def lsdr(*words, **options):
    command = [sys.executable, "-m", "lsdr", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=240, **options)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A clean file, one with a loud layer, and one with NaN."""
    root = tmp_path_factory.mktemp("files")
    clean = {f"blocks.{i}.fc.weight": noise(24, 32, seed=i) for i in range(8)} | {"blocks.0.fc.bias": noise(24)}
    save_file(clean, root / "clean.safetensors")
    save_file({**clean, "blocks.3.fc.weight": 31 * clean["blocks.3.fc.weight"]}, root / "loud.safetensors")
    save_file({**clean, "blocks.5.fc.weight": clean["blocks.5.fc.weight"] / 0}, root / "nan.safetensors")
    return root


def test_everything_at_once(folder, tmp_path):
    out = {kind: tmp_path / f"out.{kind}" for kind in ("json", "csv", "html")}
    words = [each for kind, path in out.items() for each in (f"--{kind}", path)]
    result = lsdr("inspect", folder / "loud.safetensors", *words)
    assert result.returncode == 0, result.stderr
    assert re.search(r"blocks\.3\.fc: spectral norm [23][0-9.]+x the median of its peers", result.stdout)
    assert "clean models" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= max(100, len(str(out["json"])) + 10)
    found = json.loads(out["json"].read_text())
    assert len(found["layers"]) == 8
    assert [each["kind"] for each in found["findings"]] == ["spectral_norm_outlier"]
    assert found["findings"][0]["false_positive_rate"]["models"] > 100
    keys = {"name", "shape", "operator", "sigma_max", "lower", "upper", "method", "stable_rank", "effective_rank"}
    assert keys <= found["layers"][0].keys()
    with out["csv"].open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [layer["name"] for layer in found["layers"]]
    assert float(rows[3]["sigma_max"]) == found["layers"][3]["sigma_max"]
    assert float(rows[3]["power_law_exponent.exponent"]) > 1
    assert "blocks.3.fc" in out["html"].read_text()


def test_standard_output_is_clean_json(folder):
    result = lsdr("inspect", folder / "nan.safetensors", "--json", "-")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["findings"][0]["kind"] == "nonfinite"
    assert next(layer for layer in found["layers"] if layer["name"] == "blocks.5.fc")["sigma_max"] is None


@pytest.mark.parametrize(
    ("name", "limit", "status"),
    [
        ("clean", "warning", 0),
        ("loud", "warning", 1),
        ("loud", "error", 0),
        ("loud", "nonfinite,spectral_norm_outlier", 1),
        ("loud", "dead_directions", 0),
        ("nan", "error", 1),
        ("nan", "warning", 1),
        ("nan", "zero_layer, error", 1),
        ("clean", "nonsense", 2),
    ],
)
def test_exit_status(folder, name, limit, status, capsys):
    from lsdr.cli.main import main

    with pytest.raises(SystemExit) as end:
        main(["inspect", str(folder / f"{name}.safetensors"), "--fail-on", limit])
    assert end.value.code == status
    if status:
        assert "--fail-on" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--json", "--csv", "--html"])
def test_what_cannot_be_written_is_told_before_anything_is_measured(folder, tmp_path, option, monkeypatch, capsys):
    from lsdr.cli.inspect import Inspect
    from lsdr.cli.main import main

    monkeypatch.setattr(Inspect, "_inspect", lambda self: pytest.fail("measured"))
    monkeypatch.chdir(tmp_path)
    file = str(folder / "clean.safetensors")
    for path in [tmp_path, f"{file}/out"] + ["-"] * (option != "--json"):
        with pytest.raises(SystemExit) as end:
            main(["inspect", file, option, str(path)])
        assert end.value.code == 2
        assert option in capsys.readouterr().err


def test_against_a_base(folder):
    result = lsdr("inspect", folder / "loud.safetensors", "--base", folder / "clean.safetensors")
    assert result.returncode == 0, result.stderr
    assert "against" in result.stdout
    assert "Δ/base" in result.stdout
    line = next(line for line in result.stdout.splitlines() if line.split()[:2] == ["fc", "24x32"] and " 30 " in line)
    assert line


class _Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def bad_files(root):
    good = root / "good.safetensors"
    save_file({"fc.weight": noise(50, 40)}, good)
    content = good.read_bytes()
    (root / "truncated.safetensors").write_bytes(content[: len(content) // 2])
    lying = json.dumps(
        {"fc.weight": {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 4 * 10**18]}}
    ).encode()
    (root / "lying.safetensors").write_bytes(len(lying).to_bytes(8, "little") + lying + b"\0" * 64)
    (root / "huge_header.safetensors").write_bytes((1 << 62).to_bytes(8, "little") + b"{}")
    (root / "empty.safetensors").write_bytes(b"")
    with zipfile.ZipFile(root / "a.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    torch.save({"fc.weight": _Payload(root / "executed")}, root / "payload.pt")
    (root / "text.pt").write_text("hello")
    (root / "folder").mkdir()
    names = ["truncated.safetensors", "lying.safetensors", "huge_header.safetensors", "empty.safetensors", "a.zip"]
    return [*names, "payload.pt", "text.pt", "folder", "missing.safetensors"]


EACH = """
import sys
from lsdr.cli.main import main
for name in sys.argv[2:]:
    print("=====", file=sys.stderr)
    try:
        main(["inspect", name, "--json", sys.argv[1]])
    except SystemExit as end:
        print(end.code)
"""


def test_bad_files_are_refused_in_a_sentence_and_nothing_runs(tmp_path):
    names = [tmp_path / name for name in bad_files(tmp_path)]
    command = [sys.executable, "-c", EACH, tmp_path / "out.json", *names]
    result = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=240)
    assert result.stdout.split() == ["2"] * len(names), result.stdout + result.stderr
    told = result.stderr.split("=====\n")[1:]
    assert len(told) == len(names)
    assert all(each.startswith("lsdr: ") for each in told), result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out.json").exists()
    assert not (tmp_path / "executed").exists()


def test_names_cannot_command_the_terminal(tmp_path):
    save_file(
        {"a\x1b[2J\x1b]0;owned\x07.weight": noise(4, 4), "b[red].weight": noise(4, 4)}, tmp_path / "evil.safetensors"
    )
    result = lsdr("inspect", tmp_path / "evil.safetensors")
    assert result.returncode == 0, result.stderr
    assert "\x1b" not in result.stdout
    assert "\x07" not in result.stdout
    assert "b[red]" in result.stdout


def test_ten_thousand_tensors(tmp_path):
    state = {f"blocks.{i}.{part}": noise(*shape, seed=i) for i in range(2500) for part, shape in {
        "fc.weight": (12, 10), "fc.bias": (12,), "out.weight": (10, 12), "norm.weight": (10,)}.items()}  # fmt: skip
    save_file(state, tmp_path / "many.safetensors")
    result = lsdr(
        "inspect", tmp_path / "many.safetensors", "--json", tmp_path / "out.json", "--csv", tmp_path / "out.csv"
    )
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "out.json").read_text())
    assert len(found["layers"]) == 5000
    assert len(found["skipped"]) == 5000
    assert [layer["name"] for layer in found["layers"][:2]] == ["blocks.0.fc", "blocks.0.out"]
    assert len(result.stdout.splitlines()) < 150


def test_the_table_is_short_unless_all_is_asked_for(folder):
    short = lsdr("inspect", folder / "loud.safetensors", "--top", "2").stdout
    assert "2 most notable of 8" in short
    assert sum("24x32" in line for line in short.splitlines()) == 2
    assert "blocks.3" in short.split("most notable")[1]
    whole = lsdr("inspect", folder / "loud.safetensors", "--top", "0").stdout
    assert sum("24x32" in line for line in whole.splitlines()) == 8
    assert lsdr("inspect", folder / "loud.safetensors", "--top", "-1").returncode == 2


def test_a_hundred_columns_hold_the_widest_layers(capsys):
    from lsdr.cli.inspect_view import show

    layer = {"name": "down_blocks.2.attentions.0.transformer_blocks.0.attn1.to_out.0", "block": "down_blocks.2"}
    layer |= {"shape": [10240, 10240, 3, 3], "kind": "conv2d", "sigma_max": 123.4, "sigma_over_target": 0.0123}
    layer |= {"stable_rank": 123.4, "effective_rank": 1234.5, "marchenko_pastur_outliers": 1280}
    layer |= {"power_law_exponent": {"exponent": 12.3}}
    about = {"path": "a", "format": "safetensors", "parameters": 1, "dtypes": {}, "files": ["a"], "notes": []}
    show({"file": about, "layers": [layer], "findings": [], "skipped": [], "seconds": 1.0}, 0)
    told = capsys.readouterr().out
    assert "> noise" in told
    assert "…" not in told
    assert max(map(len, told.splitlines())) <= 100
    assert "10240x10240x3x3" in told


def test_a_narrow_terminal_keeps_the_names(tmp_path, capsys, monkeypatch):
    from lsdr.cli import inspect_view
    from lsdr.inspection.inspect import inspect

    monkeypatch.setattr(inspect_view, "_WIDTH", 60)
    save_file({f"blocks.{i}.fc.weight": noise(24, 32, seed=i) for i in range(3)}, tmp_path / "a.safetensors")
    inspect_view.show(inspect(tmp_path / "a.safetensors").to_dict(), 0)
    told = capsys.readouterr().out
    assert "layer" in told
    assert sum(line.split()[:2] == ["fc", "24x32"] for line in told.splitlines()) == 3
    shown = next(line for line in told.splitlines() if line.startswith("layer")).split("  ")
    known = {"layer", "shape", "σ max", "σ/target", "stable", "eff.", "α", "> noise"}
    assert {name.strip() for name in shown} - {""} <= known, "cut off"
    assert max(map(len, told.splitlines())) <= 60


def test_help_teaches():
    result = lsdr("inspect", "--help")
    assert result.returncode == 0
    for word in ("--base", "--fail-on", "Exit status", "lsdr inspect lora.safetensors"):
        assert word in result.stdout
