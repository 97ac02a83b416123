"""What was seen of an encoder, in words, and the answer to "has it collapsed?". Imports no torch."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

KINDS = (
    "not_finite",
    "collapsed",
    "dimensional_collapse",
    "shortcut",
    "overfits",
    "not_invariant",
    "no_gain",
    "dead_dimensions",
    "few_examples",
    "not_measured",
)
"""Every kind of finding there is, the gravest first."""

Finding = dict[str, str]
Severity = Literal["error", "warning", "note"]
_SEVERITIES = ("error", "warning", "note")
_CONSTANT = 1e-6  # share of the mean square that varies: a thousandth of the codes' size
_LINE = 1.5  # effective number of directions that is little more than one
_FEW = 0.15  # of the directions that there could be
_LOST = 0.5  # of what raw inputs tell apart
_AGREE = 0.8  # ICC from which on views agree
_CHANCE = 0.1  # accuracy beyond chance, as a share of what there is beyond it, that is next to nothing
_GAP = 0.1
_ERRORS = 2.0
_DEAD = 0.1


def finding(severity: Severity, kind: str, message: str) -> Finding:
    """A finding as it stands in the JSON."""
    return {"severity": severity, "kind": kind, "message": message}


def judge(measures: Mapping[str, float | None], about: Mapping[str, Any]) -> dict[str, Any]:
    """Findings and answer from the measures of a run.

    - collapsed: codes that do not vary, by more than a millionth of their mean square, or along one direction only;
    - dimensional collapse: fewer than 15 % of the directions that there could be, which are not more than those of the
      raw inputs where these were measured, nor than the code has;
    - shortcut: two views agree (ICC 0.8), but the codes hardly tell what the raw inputs do: with labels, the linear
      probe is next to chance or has lost half of what the raw inputs' has beyond it; without, fewer than half as many
      examples find their own other view as in raw inputs.

    Args:
        measures: As in measures.json, with those of the references where there are any.
        about: "width" of the code, "train", "heldout" (examples), "finite" (share of the examples with finite codes),
            "variation" (share of their mean square that varies), "chance" (accuracy, or None).

    Returns:
        "answer" and "findings", the worst first.

    Example:
        >>> about = {"width": 16, "train": 500, "heldout": 100, "finite": 1.0, "variation": 0.0, "chance": 0.1}
        >>> judge({"dead_dimensions": 1.0}, about)["answer"]
        'Yes, it has collapsed: the encoder gives all examples the same code.'
    """
    found = _of_finiteness(about) or _of_collapse(measures, about)
    if not found:
        found = [*_of_dimensions(measures, about), *_of_shortcut(measures, about), *_of_dead(measures)]
        found += [*_of_invariance(measures), *_of_gain(measures, about)]
        found += _of_overfitting(measures)
    found += _of_numbers(measures, about)
    found.sort(key=lambda each: (_SEVERITIES.index(each["severity"]), KINDS.index(each["kind"])))
    return {"answer": _answer(found, measures, about), "findings": found}


def _answer(found: Sequence[Finding], measures: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    kinds = {each["kind"]: each["message"] for each in reversed(found)}
    for kind, opening in (
        ("not_finite", "It cannot be said whether it has collapsed: "),
        ("collapsed", "Yes, it has collapsed: "),
        ("dimensional_collapse", "Yes, in part: "),
        ("shortcut", "It has not collapsed, but it takes a "),
    ):
        if kind in kinds:
            return f"{opening}{kinds[kind].removeprefix('collapsed: ').removeprefix('not finite: ')}."
    rank = _number(measures, "effective_rank")
    if not math.isfinite(rank):
        return "It cannot be said whether it has collapsed: too little could be measured."
    return f"No, it has not collapsed: the codes vary in about {rank:.1f} of {about['width']} directions."


def _of_finiteness(about: Mapping[str, Any]) -> list[Finding]:
    finite = float(about["finite"])
    if finite == 1:
        return []
    message = f"not finite: the codes of {1 - finite:.2%} of the examples hold NaN or infinity"
    return [finding("error", "not_finite", message)]


def _of_collapse(measures: Mapping[str, Any], about: Mapping[str, Any]) -> list[Finding]:
    variation, rank = float(about["variation"]), _number(measures, "effective_rank")
    if variation == 0 or not math.isfinite(rank):
        return [finding("error", "collapsed", "collapsed: the encoder gives all examples the same code")]
    if variation < _CONSTANT:
        text = f"only {variation:.1g} of the mean square of the codes varies between examples, the rest is a constant"
        return [finding("error", "collapsed", f"collapsed: {text}")]
    if rank < _LINE and _possible(measures, about) >= 4:
        text = f"the codes vary along one direction, or little more ({rank:.1f} of {about['width']})"
        return [finding("error", "collapsed", f"collapsed: {text}")]
    return []


def _of_dimensions(measures: Mapping[str, Any], about: Mapping[str, Any]) -> list[Finding]:
    rank, possible = _number(measures, "effective_rank"), _possible(measures, about)
    if not rank < _FEW * possible:
        return []
    text = f"dimensional collapse: the codes vary in about {rank:.1f} of {about['width']} directions"
    raw = _number(measures, "effective_rank@raw")
    beside = f", the raw inputs in {raw:.0f}" if math.isfinite(raw) else ""
    return [finding("warning", "dimensional_collapse", text + beside)]


def _possible(measures: Mapping[str, Any], about: Mapping[str, Any]) -> float:
    """How many directions there could be."""
    raw = _number(measures, "effective_rank@raw")
    return min(float(about["width"]), float(about["train"]) - 1, raw if math.isfinite(raw) else math.inf)


def _of_shortcut(measures: Mapping[str, Any], about: Mapping[str, Any]) -> list[Finding]:
    agreement = _number(measures, "invariance")
    if not agreement >= _AGREE:
        return []
    opening = f"shortcut: two views agree (ICC {agreement:.2f}) on what tells little of the examples: "
    probe, raw, chance = _number(measures, "linear_probe"), _number(measures, "linear_probe@raw"), about.get("chance")
    if math.isfinite(probe) and chance is not None and chance < 1:
        own, other = ((value - chance) / (1 - chance) for value in (probe, raw))
        if (math.isfinite(raw) and other > _CHANCE and own < _LOST * other) or (
            not math.isfinite(raw) and own < _CHANCE
        ):
            beside = f", {raw:.1%} from raw inputs" if math.isfinite(raw) else ""
            text = f"a linear probe tells {probe:.1%} right{beside}, {chance:.1%} being chance"
            return [finding("warning", "shortcut", opening + text)]
        return []
    own, other = _number(measures, "view_retrieval"), _number(measures, "view_retrieval@raw")
    if own < _LOST * other:
        text = f"{own:.1%} of them find their own other view by their codes, {other:.1%} by the raw inputs"
        return [finding("warning", "shortcut", opening + text)]
    return []


def _of_dead(measures: Mapping[str, Any]) -> list[Finding]:
    dead = _number(measures, "dead_dimensions")
    return (
        [finding("note", "dead_dimensions", f"{dead:.1%} of the code's dimensions never vary")] if dead > _DEAD else []
    )


def _of_invariance(measures: Mapping[str, Any]) -> list[Finding]:
    own, raw = _number(measures, "invariance"), _number(measures, "invariance@raw")
    if not own <= raw:
        return []
    text = f"two views share {own:.1%} of the variance of the codes, and {raw:.1%} of that of the raw inputs"
    return [finding("warning", "not_invariant", f"not more invariant than the raw inputs: {text}")]


def _of_gain(measures: Mapping[str, Any], about: Mapping[str, Any]) -> list[Finding]:
    """A linear probe of all labels that is no better than a reference's, within two standard errors."""
    own = _number(measures, "linear_probe")
    others = {name: _number(measures, f"linear_probe@{name}") for name in ("raw", "pca", "random")}
    others = {name: value for name, value in others.items() if math.isfinite(value)}
    if not others or not math.isfinite(own):
        return []
    name = max(others, key=lambda each: others[each])
    best = others[name]
    error = math.sqrt((own * (1 - own) + best * (1 - best)) / max(about["heldout"], 1))
    if own - best > _ERRORS * error:
        return []
    words = {"raw": "raw inputs", "pca": "principal components", "random": "an untrained encoder"}[name]
    verdict = "worse than" if best - own > _ERRORS * error else "no better, within chance, than"
    text = f"with all labels a linear probe of the codes is {verdict} one of {words} ({own:.1%} and {best:.1%})"
    return [finding("warning" if verdict == "worse than" else "note", "no_gain", text)]


def _of_overfitting(measures: Mapping[str, Any]) -> list[Finding]:
    gap, probe = _number(measures, "overfitting_gap"), _number(measures, "knn_gap")
    found = []
    if gap > _GAP:
        text = f"two views share {gap:.1%} more of the variance in training examples than in held-out ones"
        found.append(finding("warning", "overfits", f"overfits: {text}"))
    if probe > _GAP:
        text = f"a kNN vote tells {probe:.1%} more of the training examples right, each without itself, than of others"
        found.append(finding("warning", "overfits", f"overfits: {text}"))
    return found


def _of_numbers(measures: Mapping[str, Any], about: Mapping[str, Any]) -> list[Finding]:
    found = []
    if about["heldout"] < 2:
        text = f"{about['heldout']} held-out examples: nothing could be measured that needs some"
        found.append(finding("warning", "few_examples", text))
    if about["train"] <= about["width"]:
        text = f"{about['train']} training examples for {about['width']} dimensions: ranks say more of their number"
        found.append(finding("note", "few_examples", text))
    if "linear_probe" not in measures and about.get("labels"):
        found.append(finding("note", "not_measured", f"nothing was measured with labels: {about['labels']}"))
    return found


def _number(measures: Mapping[str, Any], name: str) -> float:
    value = measures.get(name)
    return float(value) if isinstance(value, int | float) else math.nan
