"""Where a claim stands: measured in this project, cited from a document, or unsupported."""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from lsdr.genie.abstain import coverage, missing, weigh
from lsdr.genie.index import Index
from lsdr.genie.own import own_documents
from lsdr.genie.passage import Passage
from lsdr.genie.question import read_question
from lsdr.genie.terms import terms
from lsdr.genie.verify import exact

# A passage that holds this share of a claim's weight, and all of its numbers, says it.
CITED = 0.8
_NUMBER = re.compile(r"(?<![\w.])[-−+]?\d+(?:\.\d+)?(?:e-?\d+)?(?![\w]|\.\d)", re.IGNORECASE)
_LESS = {"lower", "lowers", "less", "fewer", "falls", "fell", "drops", "decrease", "decreases", "reduces", "reduced"}
# Of a comparison these are the numbers that are claimed; counts and seeds are not.
_VALUES = ("effect", "low", "high", "baseline", "relative", "rate")


@dataclass(frozen=True)
class Measured:
    """A number of a claim and what it resolves to.

    Args:
        experiment: The experiment: a file of docs/evidence/results, without its ending.
        sha256: The hash of that file.
        key: Where the value stands in it: the method, what it was compared with, the measure, the field.
        value: The value as it was measured.
        claimed: The number as it was claimed.
    """

    experiment: str
    sha256: str
    key: str
    value: float
    claimed: str


@dataclass(frozen=True)
class Standing:
    """A claim and its evidence: values that were measured, or passages that say it."""

    claim: str
    kind: Literal["measured", "cited", "unsupported"]
    measured: tuple[Measured, ...] = ()
    passages: tuple[Passage, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As what `json.dumps` takes."""
        return asdict(self)


def standing(claim: str, index: Index, *, results: Path | None = None) -> Standing:
    """Where a claim stands.

    It is measured if one of its numbers is, to the digits given, a value of docs/evidence/results whose experiment,
    method and measure it names; cited if a passage holds all of its numbers and 0.8 of its weight; otherwise
    unsupported. That the claim draws the right conclusion from the value is not judged.

    Args:
        claim: A sentence.
        index: The documents.
        results: The folder of results; the ones that come with LSDR when left out.
    """
    found = measured(claim, results=results)
    passages = _cited(claim, index)
    kind: Literal["measured", "cited", "unsupported"] = "measured" if found else "cited" if passages else "unsupported"
    return Standing(claim, kind, found, passages)


def standing_of_passages(passages: Sequence[Passage]) -> dict[str, Any]:
    """The standing of what an answer quotes: cited, for it is a quotation, and measured where its numbers resolve."""
    claims = []
    for number, passage in enumerate(passages):
        found = measured(passage.quote)
        kind = "measured" if found else "cited"
        claims.append({"passage": number, "kind": kind, "measured": [asdict(each) for each in found]})
    kinds = {claim["kind"] for claim in claims}
    return {"kind": "measured" if "measured" in kinds else "cited" if kinds else "unsupported", "claims": claims}


def measured(claim: str, *, results: Path | None = None) -> tuple[Measured, ...]:
    """The numbers of a claim that resolve to a measured value, with the experiment and the hash of its file."""
    numbers = [number for number in dict.fromkeys(_NUMBER.findall(claim)) if _digits(number) > 1]
    folder = results if results is not None else own_documents() / "evidence" / "results"
    if not numbers or not folder.is_dir():
        return ()
    words = terms(claim)
    said, lower = f" {' '.join(words)} ", bool(_LESS & set(words))
    return tuple(
        Measured(value.experiment, value.sha256, value.key, value.value, number)
        for value in _values(str(folder))
        if all(f" {name} " in said for name in value.names)
        for number in numbers
        if _same(number, value.value, lower)
    )


@dataclass(frozen=True)
class _Value:
    experiment: str
    sha256: str
    key: str
    names: tuple[str, ...]
    value: float


@cache
def _values(folder: str) -> tuple[_Value, ...]:
    """Every comparison's numbers, and every mean over seeds, read once."""
    found = []
    for path in sorted(Path(folder).glob("*.json")):
        data = path.read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        for names, field, value in _measurements(json.loads(data)):
            spoken = tuple(" ".join(terms(name)) for name in (path.stem, *names))
            found.append(_Value(path.stem, sha256, " / ".join([*names, field]), spoken, value))
    return tuple(found)


def _measurements(result: Any) -> Iterator[tuple[tuple[str, ...], str, float]]:
    """The names that a claim must have, the field and the value."""
    if not isinstance(result, dict):
        return
    for row in result.get("summary", {}).get("comparisons", []):
        for field in _VALUES:
            if isinstance(row.get(field), int | float):
                names = (row["against"],) if field == "baseline" else (row["method"],)
                yield (*names, row["measure"]), field, float(row[field])
    for arm, runs in result.get("found", {}).items():
        if isinstance(runs, list) and runs and all(isinstance(run, dict) for run in runs):
            for field in runs[0]:
                values = [run.get(field) for run in runs]
                numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
                if len(numbers) == len(values):
                    yield (arm, field), f"mean of {len(values)} seeds", sum(numbers) / len(numbers)


def _same(number: str, value: float, lower: bool) -> bool:
    """Whether the value rounds to the number as it is written; a fall may be written without its sign."""
    number = number.replace("−", "-")
    decimals = len(re.split("[eE]", number)[0].partition(".")[2])
    exponent = int(re.split("[eE]", number)[1]) if re.search("[eE]", number) else 0
    within = 0.5000001 * 10.0 ** (exponent - decimals)
    claimed = float(number)
    unsigned = lower and not number.startswith(("-", "+"))
    return abs(value - claimed) <= within or (unsigned and abs(-value - claimed) <= within)


def _digits(number: str) -> int:
    return len(re.split("[eE]", number)[0].replace(".", "").lstrip("+-−0"))


def _cited(claim: str, index: Index) -> tuple[Passage, ...]:
    words = read_question(claim)
    if not words:
        return ()
    weighed = weigh(index, words)
    if missing(weighed):
        return ()
    numbers = set(_NUMBER.findall(claim))
    found = index.search(" ".join(form for item in weighed for form in sorted(item.forms)), 20)
    said = [
        passage
        for passage in found
        if coverage(weighed, passage) >= CITED and numbers <= set(_NUMBER.findall(passage.quote))
    ]
    return exact(index, said[:3])
