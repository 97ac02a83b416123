"""Spectral measures of the codes, from their moments and those of two views."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.moments import Moments
from lsdr.representation.measures.alpha_req import alpha_req
from lsdr.representation.measures.lidar import lidar
from lsdr.representation.measures.rank_me import rank_me
from lsdr.representation.measures.two_views import icc_of_codes
from lsdr.spectrum import Spectrum
from lsdr.statistics.effective_rank import effective_rank
from lsdr.statistics.participation_ratio import participation_ratio

_WIDEST = 2048  # dimensions: an eigenvalue problem takes a minute
_ROUNDING = 1e-12  # of the mean square: variance that a constant has by rounding


@torch.no_grad()
def spectral_measures(codes: Float[Tensor, "n d"]) -> dict[str, Any]:
    """Rank, spread and decay of codes.

    Args:
        codes: Codes of n examples.

    Returns:
        "rank_me", "effective_rank", "participation_ratio", "alpha_req", "dead_dimensions" (a share), "variation" (the
        share of the mean square of the codes that varies), "finite" (share of the examples whose codes are),
        "values" (eigenvalues of the covariance, descending); nan and none where codes are constant or not finite.

    Example:
        >>> found = spectral_measures(torch.tensor([[1.0, 5.0], [-1.0, 5.0]]))
        >>> found["effective_rank"], found["dead_dimensions"], len(found["values"])
        (1.0, 0.5, 2)
    """
    nothing = dict.fromkeys(("rank_me", "effective_rank", "participation_ratio", "alpha_req"), math.nan)
    finite = float(codes.isfinite().all(1).double().mean()) if len(codes) else 0.0
    if finite < 1 or not codes.shape[1]:
        return {**nothing, "dead_dimensions": math.nan, "variation": math.nan, "finite": finite, "values": []}
    square = float(codes.double().square().sum(1).mean())
    variances = codes.double().var(0, correction=0)
    dead = float((variances <= _ROUNDING * codes.double().square().mean(0)).double().mean())
    about = {"dead_dimensions": dead, "finite": finite}
    about["variation"] = float(variances.sum()) / square if square else 0.0
    if about["variation"] <= _ROUNDING:
        return {**nothing, **about, "rank_me": rank_me(codes), "values": []}
    centred = codes.double() - codes.double().mean(0)
    values = torch.linalg.svdvals(centred).square() / len(codes)
    spectrum = Spectrum.of(values, kind="eigenvalues", method="svd")
    return {
        "rank_me": rank_me(codes),
        "effective_rank": float(effective_rank(spectrum)),
        "participation_ratio": float(participation_ratio(spectrum)),
        "alpha_req": alpha_req(spectrum).exponent,
        **about,
        "values": spectrum.values.tolist(),
    }


@torch.no_grad()
def view_measures(a: Float[Tensor, "n d"], b: Float[Tensor, "n d"]) -> dict[str, float]:
    """How alike the codes of two views are, and how many directions tell examples apart.

    Args:
        a: Codes of one view of n examples.
        b: Codes of the other.

    Returns:
        "invariance" (`icc_of_codes`), nan where there is none; "lidar", nan also where there are not more examples
        than dimensions, or more than 2048 of these.
    """
    found = {"invariance": icc_of_codes(a, b), "lidar": math.nan}
    if a.shape[1] < len(a) and a.shape[1] <= _WIDEST and math.isfinite(found["invariance"]):
        found["lidar"] = lidar(Moments.of(a.double(), b.double()))
    return found
