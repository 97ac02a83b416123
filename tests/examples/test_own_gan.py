"""What LSDR adds to a GAN of somebody's own: nine lines, each of them marked."""

import ast
import re
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_gan.py"
OURS = re.compile(r"\b(lsdr|noise|penalty|strength|signal)\b")


def test_what_is_added_is_marked_and_little():
    text = EXAMPLE.read_text(encoding="utf-8")
    first = ast.parse(text).body[0].end_lineno  # the docstring
    lines = text.splitlines()[first:]
    assert sum(line.endswith("  #") for line in lines) == 9
    for line in lines:
        assert line.endswith("  #") == bool(OURS.search(line.split("#")[0])), line
