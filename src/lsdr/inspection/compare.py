"""A layer against its base, and trained weights against their average."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.inspection.entries import read_entries
from lsdr.inspection.statistics import Precision, ranks
from lsdr.linalg.directions import INTRUDER_COSINE, TOP, Directions, above_rounding, left_vectors
from lsdr.linalg.singular_values import singular_values
from lsdr.spectrum import Spectrum

_PART = 1 << 22  # entries widened at once


def delta(
    weight: Float[Tensor, "m n"], base: Float[Tensor, "m n"], precision: Precision = "float32"
) -> tuple[dict[str, Any], Spectrum | None]:
    r"""What changed between a base weight and a fine-tuned one.

    Of the change: Frobenius norm, that over the base's, largest singular value and effective rank. Of the directions:
    the cosines of the principal angles between the spans of the ten largest left singular vectors of the two, and
    **intruder dimensions**: how many of the fine-tuned weight's ten largest left singular vectors u' have

    .. math:: \max_j |\langle u', u_j \rangle| < 0.5

    over all left singular vectors u_j of the base. Where the base's singular values lie close together, a change of
    some size turns its vectors among themselves, and full fine-tuning makes "intruders" of that sort too (three of nine
    small networks that were trained on at the full learning rate). What sets those of another origin apart is that the
    base hardly uses their direction: **new directions** are the intruders with

    .. math:: \|W_0^\top u'\| < 0.5\, \sigma'

    Source: Shuttleworth et al., "LoRA vs full fine-tuning: an illusion of equivalence" (arXiv 2410.21228), algorithm 1,
    for the intruders; the new directions are ours.

    Args:
        weight: The fine-tuned weight as a matrix.
        base: The base's.
        precision: Of the Gram matrix of the change.

    Returns:
        The object "delta" of a layer's row, and the fine-tuned weight's singular values; None where they are not
        needed or not defined.
    """
    weight, base = _wide(weight), _wide(base)
    if not bool(base.isfinite().all()) or not bool(weight.isfinite().all()):
        return {"note": "the weights or the base's are not finite"}, None
    change = weight - base
    size = read_entries(change).frobenius
    base_size = read_entries(base).frobenius
    found: dict[str, Any] = {"frobenius": size, "relative": size / base_size if base_size > 0 else None}
    if size == 0:
        return {**found, "rank": 0.0, "sigma_max": 0.0, "intruder_dimensions": 0, "new_directions": 0, "top": 0}, None
    of_change = singular_values(change, precision)
    found |= {"rank": ranks(of_change)["effective_rank"], "sigma_max": float(of_change.values[0])}
    if base_size == 0 or not bool(weight.any()):
        return {**found, "note": "the base or the weight is zero: it has no directions to compare"}, None
    spectrum, vectors = left_vectors(weight)
    _, base_vectors = left_vectors(base)
    top = min(TOP, above_rounding(spectrum.values), base_vectors.shape[1])
    cosines = (vectors[:, :top].mT @ base_vectors).abs().clamp_max(1)
    nearest = cosines.amax(1)
    between = torch.linalg.svdvals(vectors[:, :top].mT @ base_vectors[:, :top]).clamp_max(1)
    gains = (base.mT @ vectors[:, :top].to(base.dtype)).norm(dim=0).cpu() / spectrum.values[:top]
    directions = Directions(nearest, gains)
    found |= {
        "top": top,
        "principal_angles": [float(cosine) for cosine in between],
        "intruder_dimensions": directions.intruders(),
        "new_directions": directions.new(),
        "intruder_cosine": INTRUDER_COSINE,
        "top_cosines": [float(cosine) for cosine in nearest],
        "top_gains": [float(gain) for gain in gains],
    }
    return found, spectrum


def average_distance(online: Tensor, average: Tensor) -> dict[str, Any]:
    """How far averaged weights (EMA) are from the trained ones.

    Returns:
        "frobenius", the norm of the difference, and "relative", that over the trained weights' norm; None where
        either is not finite, the trained weights are zero or the shapes differ. "nonfinite", how many averaged weights
        are NaN or infinite.
    """
    parts = average.flatten().split(_PART)
    broken = sum(part.numel() - int(part.double().isfinite().sum()) for part in parts)
    if broken or online.shape != average.shape:
        return {"frobenius": None, "relative": None, "nonfinite": broken}
    change = read_entries(_wide(average.flatten(1)) - _wide(online.flatten(1)))
    size = read_entries(online.flatten(1)).frobenius
    finite = math.isfinite(change.frobenius) and math.isfinite(size)
    return {
        "frobenius": change.frobenius if finite else None,
        "relative": change.frobenius / size if finite and size > 0 else None,
        "nonfinite": 0,
    }


def _wide(weight: Tensor) -> Tensor:
    return weight if weight.dtype in (torch.float32, torch.float64) else weight.float()
