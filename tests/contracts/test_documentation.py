"""Documentation that fails when it lags behind the code."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SMALL = "--steps 4 --batch-size 4 --limit 1500 --samples 4 --sampler-steps 2 --heldout-images 4 --train-images 16 "
SMALL += "--sensitivity-images 1 --lyapunov-images 0 --operator-images 0 --extractor-steps 1 --checkpoint-every 2 "
SMALL += "--trackers"
SMALL_GAN = "--steps 4 --batch-size 16 --examples 400 --samples 40 --train-examples 40 --heldout-examples 40 --paths 2 "
SMALL_GAN += "--trackers"
SMALL_CODES = "--steps 4 --batch-size 32 --train-examples 60 --heldout-examples 40 --view-examples 20 --trackers"
SMALL_PIPELINE = "--resolution 64 --rank 2 --steps 2 --batch-size 2 --validation-steps 1 --trackers"


def _blocks(language):
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for number, block in enumerate(re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)):
            yield pytest.param(page, block, id=f"{page.relative_to(ROOT)}-{number}")


def _run(command, cwd):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment, timeout=280)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_blocks_run(page, tmp_path):
    """A page's blocks run one after another, as a reader would run them."""
    code = "\n".join(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL))
    if code:
        result = _run([sys.executable, "-W", "ignore", "-c", code], tmp_path)
        assert result.returncode == 0, result.stderr


def _commands(block):
    lines = block.replace("\\\n", " ").splitlines()
    return [line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()]


def test_the_readmes_commands_run(tmp_path):
    """Every `lsdr` command of the README, in order, with few steps."""
    from lsdr.experiments.methods import resolve

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = [c for block in re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL) for c in _commands(block)]
    ours = [command for command in commands if command.startswith("lsdr ")]
    assert len(ours) >= 3
    assert _run([sys.executable, str(ROOT / "examples" / "tiny_pipeline.py"), "."], tmp_path).returncode == 0
    (tmp_path / "pipeline").rename(tmp_path / "sd15")
    assert _run([sys.executable, str(ROOT / "examples" / "houses.py"), "houses.parquet"], tmp_path).returncode == 0
    for command in ours:
        small = SMALL.replace("--steps 4", "--steps 6") if "--resume" in command else SMALL
        small += " --lr-grid-steps 2" if "compare" in command else ""
        if "stable-diffusion" in command:
            small = SMALL_PIPELINE
        if "train gan" in command:
            small = SMALL_GAN
        if "representation" in command:
            small = SMALL_CODES
        if "reduce" in command:
            small = ""
        if "inspect" in command:
            small = "--images 1 --levels 2" if "--operator" in command else ""
        words = [*shlex.split(command)[1:], *shlex.split(small)]
        if "--seeds" in words:
            words += ["--seeds", "1"]
        if "--methods" in words:  # the names must exist; the control runs the code of decorrelation
            named = words[words.index("--methods") + 1].split(",")
            assert {resolve(name).name for name in named} >= {"baseline", "lambda_zero"}
            words += ["--methods", "baseline,lambda_zero"]
        result = _run([sys.executable, "-m", "lsdr", *words], tmp_path)
        assert result.returncode == 0, f"{command}\n{result.stderr[-3000:]}"
    made = [command for command in commands if command.startswith("make ")]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for command in made:
        assert re.search(rf"^{command.split()[1]}:", makefile, flags=re.MULTILINE), command


@pytest.mark.parametrize(("page", "block"), list(_blocks("console")))
def test_every_command_shown_has_options_that_exist(page, block):
    from lsdr.cli.main import COMMANDS

    for command in _commands(block):
        words = shlex.split(command)
        if "-m" in words:  # accelerate launch -m lsdr ...
            words = words[words.index("-m") + 1 :]
        if words[0] != "lsdr":
            assert words[0] in ("make", "pip"), command
            continue
        name = next(name for name in COMMANDS if " ".join(words[1:]).startswith(name))
        help_page = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
        section = help_page.split(f"## lsdr {name}\n")[1].split("\n## ")[0]
        for word in words:
            if word.startswith("--"):
                assert word in section, f"{page}: {command}: {word}"


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+?)\)", page.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page}: {target}"


def test_the_reference_is_what_the_code_says():
    spec = importlib.util.spec_from_file_location("docs_build", ROOT / "docs" / "build.py")
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    for name, content in build.pages().items():
        committed = (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")
        assert committed == content, f"docs/reference/{name} lags behind: run `make docs`"


def test_every_method_and_every_public_regularizer_is_documented():
    import lsdr
    from lsdr.experiments.gan_methods import GAN_METHODS
    from lsdr.experiments.methods import METHODS
    from lsdr.experiments.representation_methods import REPRESENTATION_METHODS

    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    built = set()
    tasks = (("compare", METHODS), ("compare_gan", GAN_METHODS), ("compare_representation", REPRESENTATION_METHODS))
    for command, methods in tasks:
        source = (ROOT / "src" / "lsdr" / "cli" / f"{command}.py").read_text(encoding="utf-8")
        options = source.split("methods: str")[1]
        for name in methods:
            assert f"`{name}`" in text
            assert re.search(rf"\b{name}\b", options), f"the help of --methods does not name {name}"
        built |= {type(each).__name__ for method in methods.values() for each in method.build()}
    public = {name for name in lsdr.__all__ if hasattr(getattr(lsdr, name), "project_")}
    # What acts on adapters alone is no method of a comparison from random weights: `--max-norm` of a fine-tune.
    assert public - {"AdapterNormalization"} <= built


# Those that train for minutes run small in tests/examples.
LONG = {"detection_head.py", "representation_codes.py"}


@pytest.mark.parametrize(
    "example",
    sorted(path for path in (ROOT / "examples").glob("*.py") if path.name not in LONG),
    ids=lambda path: path.name,
)
def test_examples_run(example, tmp_path):
    result = _run([sys.executable, "-W", "ignore", str(example)], tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout
