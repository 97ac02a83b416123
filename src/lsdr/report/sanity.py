"""What was checked before the first step."""

from dataclasses import dataclass

from lsdr.report.load import Results
from lsdr.report.numbers import count
from lsdr.report.plain import read_objects

# Sign and tone of each verdict; the word stands beside them.
_SIGNS = {"ok": ("✓", "better"), "warning": ("!", "warned"), "refused": ("✗", "worse")}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    check: str
    verdict: str
    symbol: str
    tone: str
    message: str


def checks(results: Results, notes: list[str]) -> list[Check]:
    """The checks of a lone run, in their order; none where nothing was checked."""
    if not results.single:
        return []
    found = []
    for item in read_objects(results.directory / "sanity.json", notes):
        verdict = str(item.get("verdict") or "")
        symbol, tone = _SIGNS.get(verdict, ("?", "none"))
        found.append(Check(str(item.get("check") or ""), verdict, symbol, tone, str(item.get("message") or "")))
    return found


def tally(found: list[Check]) -> str:
    """How many checks there are of each verdict.

    Example:
        >>> tally([Check("vae", "ok", "", "", ""), Check("data", "warning", "", "", "")])
        'Of 2 checks, 1 warned and none refused.'
    """
    warned, refused = (sum(each.verdict == verdict for each in found) for verdict in ("warning", "refused"))
    if not warned and not refused:
        return f"All {count(len(found))} checks passed."
    words = (
        f"{count(amount) if amount else 'none'} {word}" for amount, word in ((warned, "warned"), (refused, "refused"))
    )
    return f"Of {count(len(found))} checks, {' and '.join(words)}."
