"""Losses of the two players, as functions of logits."""

from lsdr.gan.losses import hinge, non_saturating, relativistic_pairing
from lsdr.gan.losses.loss import Loss

LOSSES: dict[str, Loss] = {
    "non_saturating": non_saturating.non_saturating,
    "hinge": hinge.hinge,
    "relativistic": relativistic_pairing.relativistic_pairing,
}
"""Losses by the names that options use."""
