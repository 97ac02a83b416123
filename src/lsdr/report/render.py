"""Fill a page's template: one file with its styles, scripts and plots inside."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs


def render(name: str, content: Mapping[str, Any], *, parts: Sequence[str] = ()) -> str:
    """A page as text; everything in its content is escaped, since it comes from files.

    Args:
        name: The template, without its ending.
        content: What it is filled with.
        parts: Styles and scripts beside those of the report, without their endings.
    """
    environment = Environment(
        loader=PackageLoader("lsdr.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    # Ours and Plotly's own code is not escaped.
    environment.globals["css"] = Markup("".join(_asset(f"{part}.css") for part in ("report", *parts)))
    environment.globals["script"] = Markup("".join(_asset(f"{part}.js") for part in ("report", *parts)))
    environment.globals["plotly"] = Markup(get_plotlyjs())
    environment.filters["markup"] = Markup
    return environment.get_template(f"{name}.html.j2").render(**content)


def _asset(name: str) -> str:
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")
