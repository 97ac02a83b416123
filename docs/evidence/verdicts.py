"""Judge the claims about diffusion by the rule of docs/evidence/diffusion.md, from the summaries in results/ alone."""

import json
from dataclasses import dataclass
from math import ceil
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
IMAGES = ("patches", "digits", "cifar10")
# Which way a measure must move, and the least effect that matters: of the baseline's median, or in the measure's unit.
LEAST = {
    "heldout_loss": ("lower", 0.01, 0.0),
    "fid": ("lower", 0.02, 0.0),
    "psd_rmse_db": ("lower", 0.0, 0.5),
    "grid_artifact_db": ("lower", 0.0, 0.5),
    "sensitivity": ("lower", 0.02, 0.0),
    "lyapunov": ("lower", 0.02, 0.0),
    "largest_stable_lr": ("higher", 0.02, 0.0),
    "gradient_spikes": ("lower", 0.02, 0.0),
    "diverged": ("lower", 0.02, 0.0),
    "feature_mean_abs_correlation": ("lower", 0.02, 0.0),
    "feature_effective_rank": ("higher", 0.02, 0.0),
    "caption_accuracy": ("higher", 0.02, 0.0),
}
STABLE = ("sensitivity", "lyapunov")
TRAINING = ("largest_stable_lr", "gradient_spikes", "diverged")
ARTEFACTS = ("grid_artifact_db", "psd_rmse_db")
QUALITY = ("not worse: heldout_loss", "not worse: fid")
CORRELATION = ("feature_mean_abs_correlation", "feature_effective_rank")
SUPPORTED, NOT_SUPPORTED, UNDECIDED, NO_ROOM = "supported", "not supported", "undecided", "nothing to improve"


@dataclass(frozen=True)
class Claim:
    """A claim, the arm that it is about, and where it is looked for."""

    number: str
    words: str
    arm: str
    measures: tuple[str, ...]
    tasks: tuple[str, ...] = IMAGES


CLAIMS = (
    Claim("2.1", "similar outputs for nearby inputs", "discriminator", STABLE),
    Claim("2.2", "more stable and reliable images", "discriminator", ("heldout_loss", "fid", "psd_rmse_db", *TRAINING)),
    Claim("2.3", "... video", "discriminator", ("heldout_loss", "fid", "psd_rmse_db"), ("sequences",)),
    Claim("2.5", "better performance", "discriminator", ("fid",)),
    Claim("3.1", "features less correlated", "decorrelation", CORRELATION),
    Claim("3.2", "small changes stay small", "decorrelation", STABLE),
    Claim("3.3", "training more stable", "decorrelation", TRAINING, ("patches", "digits")),
    Claim("3.4", "fewer artefacts", "decorrelation", ARTEFACTS),
    Claim("3.5", "... on images", "decorrelation", ("heldout_loss", "fid", *STABLE, *ARTEFACTS)),
    Claim("3.6", "... on text", "decorrelation", ("heldout_loss", *STABLE), ("texts",)),
    Claim("3.7", "... on video", "decorrelation", ("heldout_loss", *STABLE, *ARTEFACTS), ("sequences",)),
    Claim("4.1", "small eigenvalues: a stable process", "operator_frobenius", STABLE, ("patches",)),
    Claim("4.1", "... even eigenvalues", "decomposition_eigenvalues", STABLE),
    Claim("4.2", "fewer artefacts", "operator_frobenius", ARTEFACTS, ("patches",)),
    Claim("4.2", "... even eigenvalues", "decomposition_eigenvalues", ARTEFACTS),
    Claim("4.3", "less divergence in training", "operator_frobenius", TRAINING, ("patches",)),
    Claim("4.3", "... even eigenvalues", "decomposition_eigenvalues", TRAINING, ("patches", "digits")),
    Claim("4.4", "images, text, video", "decomposition_eigenvalues", STABLE, (*IMAGES, "texts", "sequences")),
    Claim("5.3", "a slower and steadier process", "decomposition_singular", STABLE),
    Claim("5.4", "no significant loss of quality", "decomposition_singular", QUALITY),
    Claim("5.4", "... the literal penalty", "operator_frobenius", QUALITY, ("patches",)),
)  # fmt: skip


def judge(comparison: dict, measure: str) -> tuple[str, str]:
    """One measure on one task: the verdict, and the effect in words."""
    kept = measure.removeprefix("not worse: ")
    direction, share, absolute = LEAST[kept]
    if comparison["effect"] is None:
        return UNDECIDED, "no value"
    base, pairs = comparison["baseline"], comparison["pairs"]
    sign = 1 if direction == "higher" else -1
    effect = sign * comparison["effect"]
    low, high = sorted((sign * comparison["low"], sign * comparison["high"]))
    least = max(share * abs(base), absolute)
    words = f"{kept} {comparison['effect']:+.2g} [{comparison['low']:+.2g}, {comparison['high']:+.2g}] of {base:.3g}"
    if kept != measure:
        verdict = SUPPORTED if low > -least else NOT_SUPPORTED if high < -least else UNDECIDED
    elif low == high == 0:
        return NO_ROOM, words
    elif low > 0 and effect >= least:
        verdict = NOT_SUPPORTED if comparison["verdict"] == "lower, with less diversity" else SUPPORTED
        words += "" if verdict == SUPPORTED else " with less diversity"
    else:
        verdict = NOT_SUPPORTED if high < least else UNDECIDED
    if verdict == UNDECIDED and pairs:
        needed = comparison["seeds_needed"] or ceil(pairs * ((high - low) / 2 / least) ** 2 if least else 0)
        words += f" ({needed} seeds would tell)" if needed and needed < 10_000 else ""
    return verdict, words


def together(verdicts: list[str]) -> str:
    """Supported if all are, not supported if one is not; what has nothing to improve does not vote."""
    voting = [each for each in verdicts if each != NO_ROOM]
    if not voting:
        return UNDECIDED
    if NOT_SUPPORTED in voting:
        return NOT_SUPPORTED
    return UNDECIDED if UNDECIDED in voting else SUPPORTED


def rows(claim: Claim) -> list[tuple[str, str, str, str]]:
    """Task, arm, verdict and the effects, for every weight at which the claim's arm ran."""
    found = []
    for task in claim.tasks:
        path = RESULTS / f"{task}.json"
        if not path.exists():
            continue
        summary = json.loads(path.read_text())["summary"]
        arms = [each["name"] for each in summary["methods"] if each["name"].split("@")[0] == claim.arm]
        for arm in arms:
            by_measure = {each["measure"]: each for each in summary["comparisons"] if each["method"] == arm}
            judged = [
                judge(by_measure[plain], measure)
                for measure in claim.measures
                if (plain := measure.removeprefix("not worse: ")) in by_measure
            ]
            words = "; ".join(f"{text} ({verdict})" for verdict, text in judged)
            found.append((task, arm, together([verdict for verdict, _ in judged]), words))
    return found


def table() -> str:
    """All claims as a table."""
    lines = ["| claim | | task | arm | verdict | effects against baseline |", "|---|---|---|---|---|---|"]
    for claim in CLAIMS:
        for task, arm, verdict, words in rows(claim):
            lines.append(f"| {claim.number} | {claim.words} | {task} | `{arm}` | **{verdict}** | {words} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
