"""Write docs/reference from the code: the command line's help, the measures, the public names.

`make docs` runs it; a test fails when what is committed lags behind.
"""

import contextlib
import importlib
import inspect
import io
import os
from pathlib import Path

import lsdr
from lsdr.cli.main import COMMANDS, help_text, main
from lsdr.diffusion.measures.catalogue import MEASURES
from lsdr.experiments.gan_methods import GAN_METHODS
from lsdr.experiments.methods import METHODS
from lsdr.experiments.representation_methods import REPRESENTATION_METHODS
from lsdr.gan.measures.catalogue import MEASURES as GAN_MEASURES
from lsdr.representation.measures.catalogue import MEASURES as REPRESENTATION_MEASURES

REFERENCE = Path(__file__).parent / "reference"
_NOTE = "<!-- Written by docs/build.py; edit the docstrings, not this page. -->\n\n"


def pages() -> dict[str, str]:
    """Content of every page by file name."""
    return {"cli.md": _cli(), "measures.md": _measures(), "methods.md": _methods(), "api.md": _api()}


def _cli() -> str:
    text = _NOTE + "# The command line\n\n```text\n" + help_text() + "\n```\n"
    for name in COMMANDS:
        text += f"\n## lsdr {name}\n\n```text\n{_help(name)}\n```\n"
    return text


def _help(name: str) -> str:
    output = io.StringIO()
    # A fixed width and no colours: the page must not depend on who builds it.
    before = {key: os.environ.get(key) for key in ("COLUMNS", "NO_COLOR")}
    os.environ |= {"COLUMNS": "100", "NO_COLOR": "1"}
    try:
        with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
            main([*name.split(), "--help"])
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value
    return "\n".join(line.rstrip() for line in output.getvalue().splitlines()).strip()


def _measures() -> str:
    text = (
        _NOTE + "# Measures\n\nEvery number in a run's `measures.json`. A name that ends in `@equal_time` is the same "
    )
    text += "measure at the baseline's wall-clock.\n"
    tasks = (("Diffusion models", MEASURES), ("GANs", GAN_MEASURES), ("Representations", REPRESENTATION_MEASURES))
    for title, measures in tasks:
        text += f"\n## {title}\n\n| name | what it is | unit | better |\n| --- | --- | --- | --- |\n"
        for name, measure in measures.items():
            what = f"{measure.label}: {measure.description}"
            text += f"| `{name}` | {what} | {measure.unit or '-'} | {measure.better or '-'} |\n"
    return text


def _methods() -> str:
    text = _NOTE + "# Methods\n\nWhat `--method` and `--methods` can name. `NAME@NUMBER` sets another weight, or "
    text += (
        "whatever a method's number is; `package.module:function` names a function of yours that returns a tuple of "
    )
    text += "regularizers or a `lsdr.Method`.\n"
    tasks = (("Diffusion models", METHODS), ("GANs", GAN_METHODS), ("Representations", REPRESENTATION_METHODS))
    for title, methods in tasks:
        text += f"\n## {title}\n\n| name | what it is | number |\n| --- | --- | --- |\n"
        for name, method in methods.items():
            text += f"| `{name}` | {method.description} | {', '.join(method.number) or '-'} |\n"
    return text


def _api() -> str:
    text = _NOTE + "# Public names\n\nAll are attributes of `lsdr`; `help(lsdr.NAME)` tells the rest.\n\n"
    text += "| name | what it is |\n| --- | --- |\n"
    for name in lsdr.__all__:
        item = getattr(lsdr, name)
        summary = (inspect.getdoc(item) or "").split("\n", 1)[0]
        home = importlib.import_module(item.__module__).__name__
        text += f"| `lsdr.{name}` | {summary} (`{home}`) |\n"
    return text


if __name__ == "__main__":
    REFERENCE.mkdir(exist_ok=True)
    for file, content in pages().items():
        (REFERENCE / file).write_text(content, encoding="utf-8")
        print(f"wrote docs/reference/{file}")
