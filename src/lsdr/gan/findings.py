"""What was seen of a generator, in words, and the answer to "is this mode collapse?". Imports no torch."""

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, Literal

KINDS = (
    "not_finite",
    "one_image",
    "repeats",
    "mode_collapse",
    "memorises",
    "missing_modes",
    "uneven_modes",
    "off_modes",
    "narrow_modes",
    "low_coverage",
    "unrealistic",
    "discriminator_overfits",
    "jumps",
    "layers",
    "not_measured",
)
"""Every kind of finding there is, the gravest first."""

Finding = dict[str, str]
Severity = Literal["error", "warning", "note"]
_SEVERITIES = ("error", "warning", "note")
_HOLD = 0.9  # the modes that hold this share of the samples are named
_COLLAPSED = 0.6  # reverse KL beyond a perfect sampler's: little more than half of the modes would do as well
_UNEVEN, _VERY_UNEVEN = 0.05, 0.1  # reverse KL beyond a perfect sampler's that is worth saying: of one mode in 20, 10
_SIGMAS = 4.0
_NARROW = 0.5
_ALIKE = 0.1  # of the samples that there are, or of the data
_LOST = 0.5  # of what real examples kept aside score
_UNLIKE = 0.05
_COPIES = 0.1
_OVERFIT = 0.5
_JUMP = 0.5
_BUTS = ("memorises", "off_modes", "unrealistic")


def finding(severity: Severity, kind: str, message: str) -> Finding:
    """A finding as it stands in the JSON."""
    return {"severity": severity, "kind": kind, "message": message}


def not_measured(what: str, why: object) -> Finding:
    """A measure that could not be made, and why."""
    return finding("note", "not_measured", f"{what} could not be measured: {why}")


def ranked(found: Sequence[Finding]) -> list[Finding]:
    """The worst first: errors, warnings, notes, and within one severity in the order of `KINDS`."""
    return sorted(found, key=lambda each: (_SEVERITIES.index(each["severity"]), KINDS.index(each["kind"])))


def of_finiteness(finite: int, samples: int, layers: Sequence[str] = ()) -> list[Finding]:
    """Samples that are no numbers, with the layers whose weights are none either.

    Example:
        >>> of_finiteness(0, 100, ["generator.net.0"])[0]["message"]
        'not finite: 100 of 100 samples hold NaN or infinity; so do the weights of generator.net.0'
    """
    if finite == samples and not layers:
        return []
    named = [*layers[:3], *(["others"] if len(layers) > 3 else [])]
    where = f"the weights of {_listed(named)}" if named else ""
    if finite == samples:
        return [finding("error", "not_finite", f"not finite: {where} hold NaN or infinity")]
    message = f"not finite: {samples - finite} of {samples} samples hold NaN or infinity"
    return [finding("error", "not_finite", message + (f"; so do {where}" if where else ""))]


def of_repeats(distinct: int, samples: int, train: int, thing: str = "image") -> list[Finding]:
    """One sample over and over, or few.

    Args:
        distinct: How many samples differ from one another by more than a trifle.
        samples: Out of how many.
        train: How many examples there were to learn from: a sampler that returns all of them is no collapsed one.
        thing: What a sample is called.

    Example:
        >>> of_repeats(1, 500, 1000)[0]["message"]
        'the generator returns one image: all 500 samples are alike'
        >>> of_repeats(5, 500, 1000)[0]["kind"], of_repeats(400, 500, 1000)
        ('repeats', [])
    """
    if samples > 1 and distinct == 1:
        return [finding("error", "one_image", f"the generator returns one {thing}: all {samples} samples are alike")]
    if distinct <= _ALIKE * min(samples, train):
        return [finding("error", "repeats", f"mode collapse: of {samples} samples only {distinct} differ")]
    return []


def of_modes(modes: Mapping[str, Any]) -> list[Finding]:
    """Modes, classes or clusters that samples leave out or prefer, beside what a perfect sampler would.

    Collapse is when the reverse KL is 0.6 nats or more above a perfect sampler's at this number of samples: 55 % of the
    modes, evenly used, have as much. Short of that, modes are missing or uneven where that is more than four standard
    deviations beyond what chance does to a perfect sampler.

    Args:
        modes: "kind" (what one is called), "total", "counts" of samples, "expected" (shares of the data), "captured",
            "reverse_kl", "high_quality" (or None), "names" and "spread" where there are any, and "perfect": "mean" and
            "sd" of a perfect sampler's "modes", "reverse_kl" and "high_quality".

    Example:
        >>> perfect = {"modes": {"mean": 4.0, "sd": 0.0}, "reverse_kl": {"mean": 0.003, "sd": 0.002},
        ...            "high_quality": {"mean": 0.989, "sd": 0.002}}
        >>> modes = {"kind": "mode", "total": 4, "counts": [480, 10, 0, 0], "captured": 2, "expected": [0.25] * 4,
        ...          "reverse_kl": 1.29, "high_quality": 0.98, "perfect": perfect}
        >>> of_modes(modes)[0]["message"]
        'mode collapse: 1 of 4 modes holds 98 % of the samples that lie at one, and 2 are captured where a perfect
        sampler captures 4'
    """
    kind, total = str(modes["kind"]), int(modes["total"])
    perfect: Mapping[str, Any] = modes["perfect"]
    captured, (mean, deviation) = int(modes["captured"]), _of(perfect, "modes")
    if captured == 0:
        return [finding("error", "off_modes", f"none of the samples lies at one of the {total} {_plural(kind)}")]
    found = []
    (ideal, chance), divergence = _of(perfect, "reverse_kl"), float(modes["reverse_kl"])
    if divergence - ideal >= _COLLAPSED:
        found.append(finding("error", "mode_collapse", f"mode collapse: {_preferred(modes)}{_beside(modes)}"))
    elif captured < mean - max(_SIGMAS * deviation, 0.5):
        lost = _count(mean - captured)
        verb = "is" if lost == "1" else "are"
        message = f"{lost} of {total} {_plural(kind)} {verb} missing{_missing(modes)}"
        found.append(finding("warning", "missing_modes", message))
    elif divergence > ideal + max(_SIGMAS * chance, _UNEVEN):
        severity: Severity = "warning" if divergence - ideal >= _VERY_UNEVEN else "note"
        found.append(finding(severity, "uneven_modes", _uneven(modes)))
    found += _off_modes(kind, modes.get("high_quality"), perfect)
    narrow = modes.get("spread")
    if narrow is not None and narrow < _NARROW:
        message = f"samples within a {kind} spread over {narrow:.0%} of the data's width: variety is lost inside it"
        found.append(finding("warning", "narrow_modes", message.replace("%", " %")))
    return found


def _of(perfect: Mapping[str, Any], measure: str) -> tuple[float, float]:
    """Mean and standard deviation of a perfect sampler's measure."""
    return float(perfect[measure]["mean"]), float(perfect[measure]["sd"])


def _preferred(modes: Mapping[str, Any]) -> str:
    """How few modes hold nearly all samples."""
    counts, kind = sorted(map(int, modes["counts"]), reverse=True), str(modes["kind"])
    hits, held = sum(counts), list(accumulate(counts))
    few = next(place for place, amount in enumerate(held, start=1) if amount >= _HOLD * hits)
    at_one = " that lie at one" if modes.get("high_quality") is not None else ""
    verb = "holds" if few == 1 else "hold"
    return (
        f"{few} of {modes['total']} {_plural(kind)} {verb} {held[few - 1] / hits:.0%} of the samples{at_one}".replace(
            "%", " %"
        )
    )


def _beside(modes: Mapping[str, Any]) -> str:
    captured, (mean, _) = int(modes["captured"]), _of(modes["perfect"], "modes")
    if captured >= mean - 0.5:
        return ""
    verb = "is" if captured == 1 else "are"
    return f", and {captured} {verb} captured where a perfect sampler captures {_count(mean)}"


def _missing(modes: Mapping[str, Any]) -> str:
    """Which modes have no sample, where they are few enough to name."""
    names = modes.get("names") or []
    empty = [str(names[place]) for place, amount in enumerate(modes["counts"]) if amount == 0 and place < len(names)]
    return f": {_listed(empty)}" if 0 < len(empty) <= 4 else ""


def _uneven(modes: Mapping[str, Any]) -> str:
    kind, counts, hits = str(modes["kind"]), modes["counts"], sum(modes["counts"])
    ratios = [
        (amount / hits) / share for amount, share in zip(counts, modes["expected"], strict=True) if share > 0 and hits
    ]
    mean, _ = _of(modes["perfect"], "reverse_kl")
    return (
        f"{_plural(kind)} are uneven: the most frequent comes {max(ratios):.1f} times as often as in the data, the "
        f"rarest {min(ratios):.2g} times (reverse KL {modes['reverse_kl']:.3g}, a perfect sampler's {mean:.2g})"
    )


def _off_modes(kind: str, quality: float | None, perfect: Mapping[str, Any]) -> list[Finding]:
    if quality is None or quality >= 0.95 * (ideal := _of(perfect, "high_quality")[0]):
        return []
    message = f"{1 - quality:.0%} of the samples lie at no {kind} (a perfect sampler: {1 - ideal:.1%})".replace(
        "%", " %"
    )
    return [finding("warning" if quality < 0.5 * ideal else "note", "off_modes", message)]


def of_fidelity(fidelity: Mapping[str, Any]) -> list[Finding]:
    """Precision and coverage far below those of real examples kept aside.

    Args:
        fidelity: "precision", "coverage" and so on, and "reference", the same of real examples.

    Example:
        >>> real = {"precision": 0.8, "coverage": 0.9}
        >>> of_fidelity({"precision": 0.7, "coverage": 0.2, "reference": real})[0]["kind"]
        'low_coverage'
    """
    found = []
    reference: Mapping[str, float] = fidelity["reference"]
    share, real = fidelity["coverage"], reference["coverage"]
    if share < _LOST * real:
        message = f"samples reach {share:.0%} of the data's neighbourhoods, as many real examples kept aside {real:.0%}"
        found.append(finding("warning", "low_coverage", message))
    share, real = fidelity["precision"], reference["precision"]
    if share < _LOST * real:
        message = f"{share:.0%} of the samples lie among the data, of real examples kept aside {real:.0%}"
        found.append(finding("error" if share < _UNLIKE * real else "warning", "unrealistic", message))
    return [{**each, "message": each["message"].replace("%", " %")} for each in found]


def of_memorisation(copies: float, real_copies: float, samples: int, thing: str = "image") -> list[Finding]:
    """Samples that are training examples over again.

    Args:
        copies: Share of the samples that lie much nearer to a training example than real examples kept aside do.
        real_copies: The same share of real examples kept aside.
        samples: How many samples were looked at.
        thing: What an example is called.

    Example:
        >>> of_memorisation(0.97, 0.02, 1000)[0]["message"]
        'memorises: 97 % of 1000 samples are copies of a training image, of real images kept aside 2 %'
    """
    if copies - real_copies <= _COPIES:
        return []
    message = (
        f"memorises: {copies:.0%} of {samples} samples are copies of a training {thing}, of real {thing}s kept aside "
        f"{real_copies:.0%}"
    )
    return [finding("error" if copies > 0.5 else "warning", "memorises", message.replace("%", " %"))]


def of_overfitting(overfitting: Mapping[str, Any]) -> list[Finding]:
    """A discriminator that knows its training examples from real ones it has not seen.

    Args:
        overfitting: "ratio", (E D(train) - E D(held out)) / (E D(train) - E D(samples)), "gap", its numerator, and
            "error", the gap's standard error.

    Example:
        >>> of_overfitting({"ratio": 0.8, "gap": 2.0, "error": 0.1})[0]["kind"]
        'discriminator_overfits'
    """
    ratio, gap, error = (float(overfitting[name]) for name in ("ratio", "gap", "error"))
    if not (ratio > _OVERFIT and gap > _SIGMAS * error):
        return []
    message = (
        f"discriminator overfits: it rates training examples {gap:.2g} above real ones it has not seen, {ratio:.0%} "
        "of the way down to samples"
    )
    return [finding("warning", "discriminator_overfits", message.replace("%", " %"))]


def of_interpolation(largest: float, steps: int) -> list[Finding]:
    """Paths between latents that leap.

    Args:
        largest: Share of a path's length that its longest step takes, the median over paths.
        steps: How many steps a path has; an even one takes 1 / steps each.

    Example:
        >>> of_interpolation(0.8, 16)[0]["message"]
        'jumps: between two latents 80 % of the way is a single one of 16 steps, an even path takes 6 % a step'
    """
    if largest < max(_JUMP, 2 / steps):
        return []
    message = (
        f"jumps: between two latents {largest:.0%} of the way is a single one of {steps} steps, an even path takes "
        f"{1 / steps:.0%} a step"
    )
    return [finding("note", "jumps", message.replace("%", " %"))]


def of_layers(findings: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """What an inspection of the layers says, one line in all: the weights have a command of their own."""
    grave = [each for each in findings if each.get("severity") in ("error", "warning") and each["kind"] != "nonfinite"]
    if not grave:
        return []
    others = f", and {len(grave) - 1} more findings on layers" if len(grave) > 1 else ""
    return [finding("note", "layers", f"layers: {grave[0]['text']}{others} (`lsdr inspect` without --gan has all)")]


def answer(found: Mapping[str, Any]) -> str:
    """Whether this is mode collapse, in one sentence.

    Args:
        found: "findings", and "modes" where they were counted.

    Example:
        >>> answer({"findings": []})
        'No sign of mode collapse.'
        >>> answer({"findings": [finding("error", "one_image", "the generator returns one image: all 9 are alike")]})
        'Yes, this is mode collapse: the generator returns one image: all 9 are alike.'
    """
    by_kind = {str(each["kind"]): str(each["message"]) for each in reversed(found["findings"])}
    errors = {str(each["kind"]) for each in found["findings"] if each["severity"] == "error"}
    yes, nothing = "Yes, this is mode collapse", "There is nothing to judge"
    # Samples unlike any example fall into few clusters, too; that is no collapse.
    for kind, start in (("one_image", yes), ("repeats", yes), ("unrealistic", nothing), ("mode_collapse", yes)):
        if kind in errors:
            return f"{start}: {by_kind[kind].removeprefix('mode collapse: ')}."
    modes = found.get("modes")
    for kind in ("not_finite", "off_modes", "not_measured"):
        if kind in errors:
            return f"{nothing}: {by_kind[kind].removeprefix('not finite: ')}."
    warned = {str(each["kind"]) for each in found["findings"] if each["severity"] != "note"}
    for kind in ("missing_modes", "uneven_modes", "narrow_modes", "low_coverage"):
        if kind in warned:
            return f"In part: {by_kind[kind]}."
    no = f"No sign of mode collapse{_covered(modes) if modes else ''}."
    buts = (f"it {by_kind[kind]}" if kind == "memorises" else by_kind[kind] for kind in _BUTS if kind in warned)
    but = next(buts, "")
    return f"{no} But {but}." if but else no


def _covered(modes: Mapping[str, Any]) -> str:
    (mean, _), (ideal, _) = (_of(modes["perfect"], name) for name in ("modes", "reverse_kl"))
    kind, captured, total = str(modes["kind"]), int(modes["captured"]), int(modes["total"])
    words = f": {captured} of {total} {_plural(kind)} are captured"
    if mean < total - 0.5:
        words += f", by a perfect sampler {_count(mean)}"
    return f"{words}, and their reverse KL is {modes['reverse_kl']:.2g} where a perfect sampler gets {ideal:.2g}"


def _plural(kind: str) -> str:
    """The word for several.

    Example:
        >>> _plural("mode"), _plural("class")
        ('modes', 'classes')
    """
    return f"{kind}es" if kind.endswith("s") else f"{kind}s"


def _count(value: float) -> str:
    return f"{value:.0f}" if math.isfinite(value) else "some"


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
