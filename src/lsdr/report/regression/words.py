"""A reduction in words, for the page and for the terminal."""

import math
from collections.abc import Mapping
from typing import Any

from lsdr.report.numbers import count, number, plural
from lsdr.report.plain import mapping, mappings, scalar, sequence
from lsdr.report.regression.steps import chosen_place, least_place, steps_in, training
from lsdr.report.words import listed

RULES = {
    "size": "the size asked for",
    "p_value": "dropping while the weakest's p is above the threshold",
    "aic": "least AIC on the path",
    "bic": "least BIC on the path",
    "cp": "least Mallows' Cp on the path",
    "cv": "least held-out error",
    "one_se": "the smallest model within one standard error of the least held-out error",
}
_NAMED = 12

DESCRIPTIVE = (
    "The t values of the chosen model are descriptive: its terms were picked for having large ones, on the same rows. "
    "Among columns of pure noise more than half of those kept can pass |t| > 1.96."
)


def title(found: Mapping[str, Any]) -> str:
    """What was reduced."""
    target = str(found.get("target") or "")
    return f"What {target} needs" if target else "A reduction"


def facts(found: Mapping[str, Any]) -> list[str]:
    """What was computed, and how, in short phrases."""
    steps = steps_in(found)
    rows, missing, folds, ridge = (scalar(found.get(name)) for name in ("n", "missing", "folds", "ridge"))
    told = [
        f"{count(rows)} rows" if math.isfinite(rows) else "",
        f"{count(missing)} left out with missing values" if missing > 0 else "",
        plural(int(scalar(steps[0]["size"])), "term") if steps else "",
        {"gram": "from cross-products", "qr": "by QR"}.get(str(found.get("method")), ""),
        f"standard errors: {found['errors']}" if found.get("errors") else "",
        plural(int(folds), "fold") if folds > 0 else "",
        "no intercept" if found.get("intercept") is False else "",
        f"ridge {number(ridge)}" if ridge > 0 else "",
    ]
    return [fact for fact in told if fact]


def outcome(found: Mapping[str, Any]) -> list[str]:
    """What came out: the choice and why, what went, and the errors before and after."""
    steps = steps_in(found)
    place = chosen_place(found, steps)
    if place is None:
        return []
    chosen = mapping(found.get("chosen"))
    size, whole = int(scalar(steps[place]["size"])), int(scalar(steps[0]["size"]))
    kept = [str(name) for name in sequence(chosen.get("features"))]
    rule = str(chosen.get("rule") or "")
    why = str(chosen.get("why") or "") or f"Rule: {RULES.get(rule, rule)}."
    gone = [str(step.get("removed")) for step in steps[:place] if step.get("removed")]
    told = [f"{size} of {plural(whole, 'term')} kept{': ' + _named(kept) if kept else ''}. {_sentence(why)}"]
    told += [f"Dropped, the weakest first: {_named(gone)}."] if gone else []
    errors = _errors(found, steps, place)
    return told + ([errors] if errors else [])


def _errors(found: Mapping[str, Any], steps: list[dict[str, Any]], place: int) -> str:
    """Held-out error, and the training error that can only have risen."""
    heldout = [scalar(step.get("mse_heldout")) for step in steps]
    fitted = training(found, steps)
    least = least_place(steps)
    if least is None or not (math.isfinite(heldout[place]) and math.isfinite(heldout[0])):
        return ""
    spread = scalar(steps[place].get("mse_heldout_se"))
    about = f" ± {number(spread, 2)}" if math.isfinite(spread) else ""
    whole = number(heldout[0], 5)
    if place == least:
        rest = ", the least on the path" + (f"; with every term {whole}" if place else "")
    elif least == 0:
        rest = f"; with every term {whole}, the least on the path"
    else:
        terms = plural(int(scalar(steps[least]["size"])), "term")
        rest = f"; the least is {number(heldout[least], 5)} with {terms}" + (f", with all {whole}" if place else "")
    text = f"Held-out mean squared error {number(heldout[place], 5)}{about}{rest}."
    if place and all(math.isfinite(fitted[at]) for at in (0, place)):
        text += f" On the rows fitted it went from {number(float(fitted[0]), 4)} to {number(float(fitted[place]), 4)}."
    return text


def split_sentence(found: Mapping[str, Any]) -> str:
    """What the split-sample columns are, or how to come by them."""
    split = mapping(found.get("split"))
    if not split:
        return ""
    used, chosen = scalar(split.get("rows")), scalar(split.get("rows_selection"))
    kept = {str(name) for name in sequence(split.get("features"))}
    whole = {str(name) for name in sequence(mapping(found.get("chosen")).get("features"))}
    told = f" on {count(chosen)} rows" if math.isfinite(chosen) else ""
    rest = f" on the other {count(used)}" if math.isfinite(used) else " on the others"
    text = f"Split-sample columns: the selection, its rule included, was run{told} and the model fitted{rest}; "
    text += "their t, p and intervals hold."
    if kept == whole:
        return f"{text} That half chose the same terms."
    parts = [f"without {_named(sorted(whole - kept))}"] if whole - kept else []
    parts += [f"with {_named(sorted(kept - whole))}"] if kept - whole else []
    return f"{text} That half chose {plural(len(kept), 'term')}, {listed(parts)}."


def notes(found: Mapping[str, Any]) -> list[str]:
    """Warnings, and the columns that never entered."""
    told = [str(note) for note in sequence(found.get("notes"))]
    # A reduction's own notes name them already.
    gone = () if any(note.startswith("Dropped before") for note in told) else mappings(found.get("aliased"))
    told += [f"Never entered: {each.get('column')} ({each.get('reason') or 'no reason given'})." for each in gone[:20]]
    return told + ([f"So did {plural(len(gone) - 20, 'further column')}."] if len(gone) > 20 else [])


def _named(names: list[str]) -> str:
    if len(names) <= _NAMED:
        return listed(names)
    return f"{', '.join(names[:_NAMED])} and {len(names) - _NAMED} more"


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."
