"""What is looked at before the first step: who trains on wrong latents sees nothing for long, and then kaboom."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lsdr import runs
from lsdr.data.problem import HARMLESS, USED
from lsdr.stable_diffusion.latents import decode_latents, encode_pixels

Verdict = Literal["ok", "warning", "refused"]

# A VAE's scale factor is there to make the standard deviation 1; photographs of one subject stay within these.
_USUAL = (0.7, 1.4)
_POSSIBLE = (0.5, 2.0)
# White noise has slope 0, latents of pictures fall.
_FALLING = -0.3
# A trained VAE loses a few percent of a picture's variance.
_LOST = (0.25, 1.0)


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        check: Its name.
        verdict: "ok"; "warning": training goes on; "refused": it cannot work.
        message: What was found, and what to do.
        evidence: The numbers.
    """

    check: str
    verdict: Verdict
    message: str
    evidence: dict[str, Any] = field(default_factory=dict)


class SanityError(ValueError):
    """The checks before the first step found that training cannot work."""


def conclude(checks: Sequence[Check], directory: Path, *, refuse: bool) -> None:
    """Write sanity.json, and stop where a check refused.

    Args:
        checks: What was looked at.
        directory: The run's folder.
        refuse: Whether to stop.

    Raises:
        SanityError: If a check refused and `refuse` is set; the message has theirs.
    """
    runs.write_json(directory / "sanity.json", [asdict(check) for check in checks])
    refused = [check for check in checks if check.verdict == "refused"]
    if refused and refuse:
        found = "; ".join(f"{check.check}: {check.message}" for check in refused)
        raise SanityError(f"{found} (--sanity warn trains all the same; sanity.json has the numbers)")


def check_data(problems: Sequence[Mapping[str, Any]], images: int) -> list[Check]:
    """Whether images were left out because they could not be read or had no caption, or captions are cut off.

    Args:
        problems: Counts by kind with examples, as `lsdr.data.problem.Problems.summary` gives them.
        images: How many images are left, mirrored and repeated ones once.

    Returns:
        One check for each kind; one that says that all is well where there is none.

    Example:
        >>> check_data([{"kind": "damaged", "count": 1, "examples": ["7.png"]}], 19)[0].message
        '1 left out as damaged (7.png); 19 images remain: repair or remove it'
    """
    found = []
    for problem in problems:
        names = ", ".join(map(str, problem["examples"][:3])) + ", ..." * (problem["count"] > 3)
        kind, count = str(problem["kind"]), int(problem["count"])
        if kind in HARMLESS:  # beside the images
            continue
        if kind in USED:
            message = f"{count} used as {kind.replace('_', ' ')} ({names}): what no text encoder reads is cut off"
        else:
            them = "it" if count == 1 else "them"
            message = (
                f"{count} left out as {kind.replace('_', ' ')} ({names}); {images} images remain: repair or remove "
            )
            message += them
        found.append(Check(f"data: {kind}", "warning", message, dict(problem)))
    return found or [Check("data", "ok", f"all {images} images are readable and have captions", {"images": images})]


def check_heldout(unseen: bool) -> list[Check]:
    """A warning where no picture is held out: overtraining then is hardly seen.

    Of 28 tiny fine-tunes that overtrained, the held-out loss told 28 and all other signs together 5, without a false
    alarm in 32 others (benchmarks/overtraining_false_positives.py).

    Args:
        unseen: Whether there are held-out pictures.

    Returns:
        One warning, or nothing.

    Example:
        >>> [check.verdict for check in check_heldout(False)]
        ['warning']
    """
    if unseen:
        return []
    message = (
        "no picture is held out, so overtraining will hardly be seen: of 28 overtrained runs the held-out loss told "
        "28, all other signs 5; keep some aside with --holdout 0.1"
    )
    return [Check("data: held out", "warning", message)]


def check_latents(
    latents: Sequence[Tensor], *, scaling_factor: float | None = None, working: bool = False
) -> list[Check]:
    r"""Whether latents have the size and the spectrum that a network trained on scaled latents expects.

    A VAE's `scaling_factor` is the reciprocal of its latents' standard deviation, so that the network sees
    :math:`\mathrm{Var}\, z = 1` (Rombach et al. 2022, section G). Another VAE's factor, or none, is the commonest way
    to train on latents that the network has never seen: SD's is 0.18215, SDXL's 0.13025. The slope of the radial power
    spectrum, :math:`\log P(f) = a + s \log f`, is negative for latents of pictures and 0 for white noise.

    Args:
        latents: Batches (b, c, h, w) in the network's units.
        scaling_factor: The VAE's, to say what it would have to be.
        working: Whether the network denoises these latents better than a linear filter does: then an unusual size is
            that of unusual pictures.

    Returns:
        Checks "latents" and "latents: spectrum".

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> found = check_latents([5 * torch.randn(4, 4, 8, 8, generator=generator)], scaling_factor=1.0)
        >>> [check.verdict for check in found]
        ['refused', 'warning']
    """
    channels = torch.cat([batch.float().movedim(1, 0).flatten(1) for batch in latents], dim=1)
    if not bool(channels.isfinite().all()):
        message = (
            "some latents are not finite: this VAE overflows (the first SDXL VAE does in float16); use another one"
        )
        return [Check("latents", "refused", message, {"nonfinite": int((~channels.isfinite()).sum())})]
    means, deviations = channels.mean(1), channels.std(1)
    # Within channels: a mean that differs between channels is no spread.
    spread = float(deviations.square().mean().sqrt())
    slope = _slope(latents)
    evidence = {
        "std": spread, "channel_means": means.tolist(), "channel_stds": deviations.tolist(),
        "scaling_factor": scaling_factor,
    }  # fmt: skip
    size: Verdict = "ok"
    message = f"standard deviation {spread:.2f} (1 is what the VAE's scale factor is for)"
    if not _USUAL[0] <= spread <= _USUAL[1]:
        size = "refused" if not _POSSIBLE[0] <= spread <= _POSSIBLE[1] and not working else "warning"
        wrong = "" if scaling_factor is None or spread == 0 else (
            f" for these pictures, which {scaling_factor / spread:.4g} would give instead of {scaling_factor:g} "
            "(vae/config.json)"
        )  # fmt: skip
        message += wrong + ": take the VAE that the network was trained with, or flat pictures out of the data"
    elif float((means.abs() / deviations.clamp_min(1e-12)).max()) > 4:
        size = "warning"
        message += ", but a channel's mean is more than 4 of its deviations: flat pictures, or another VAE's shift"
    falling = slope < _FALLING
    spectrum = Check(
        "latents: spectrum",
        "ok" if falling else "warning",
        f"power falls like frequency^{slope:.2f}"
        + ("" if falling else ": flat like noise, not like latents of pictures; look at the pictures and the VAE"),
        {"slope": slope},
    )
    return [Check("latents", size, message, evidence), spectrum]


def check_vae(vae: nn.Module, pictures: Sequence[Tensor]) -> Check:
    r"""Whether the VAE gives pictures back.

    .. math:: e = \sum \lVert \mathrm{decode}(\mathrm{encode}(x)) - x \rVert^2 / \sum \lVert x - \bar x \rVert^2

    A trained VAE of 8x downscaling loses a few percent of a photograph's variance; one with random weights all of it.

    Args:
        vae: The VAE, on the device of the pictures.
        pictures: Batches (b, 3, h, w) in [-1, 1], sides that the VAE can halve.

    Returns:
        The check "vae": a warning above 0.25, and refused where nothing finite comes back.
    """
    lost = total = 0.0
    with torch.no_grad():
        for pixels in pictures:
            mean, _ = encode_pixels(vae, pixels)
            lost += float((decode_latents(vae, mean).float() - pixels).square().sum())
            total += float((pixels - pixels.mean(dim=(0, 2, 3), keepdim=True)).square().sum())
    share = lost / max(total, 1e-12)
    evidence = {"lost_share": share}
    if share != share or share == float("inf"):
        message = (
            "what the VAE decodes is not finite: it overflows in its precision; use another VAE, or float32 weights"
        )
        return Check("vae", "refused", message, evidence)
    if share <= _LOST[0]:
        return Check("vae", "ok", f"gives pictures back but for {share:.0%} of their variance", evidence)
    loses = f"loses {share:.0%} of the pictures' variance on the way there and back"
    advice = "it looks untrained or broken" if share > _LOST[1] else "fine detail cannot be learned through it"
    return Check("vae", "warning", f"{loses}: {advice}; compare a picture with what it decodes to", evidence)


def _slope(latents: Sequence[Tensor]) -> float:
    """Slope of log power over log frequency, by least squares over rings, of latents without their means."""
    from lsdr.fourier.radial_power_spectrum import radial_power_spectrum

    x, y, weight = [], [], []
    for batch in latents:
        z = batch.float()
        found = radial_power_spectrum(z - z.mean(dim=(0, 2, 3), keepdim=True))
        power = found.power[:, 1:].mean(0)
        used = power > 0
        x.append(found.frequency[1:][used].log())
        y.append(power[used].log())
        weight.append(found.count[1:][used] * len(z))
    log_f, log_p, w = (torch.cat(parts).double() for parts in (x, y, weight))
    if len(log_f) < 2:
        return 0.0
    w = w / w.sum()
    centred = log_f - (w * log_f).sum()
    return float((w * centred * (log_p - (w * log_p).sum())).sum() / (w * centred.square()).sum().clamp_min(1e-12))
