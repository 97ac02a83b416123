"""The methods that a comparison of representations can name: arms. Imports no torch; building a method does."""

from collections.abc import Callable
from functools import partial
from typing import Any

from lsdr.experiments.method import Method

REPRESENTATION_PLAIN: dict[str, Any] = {"objective": "vicreg", "robust": "none"}
"""What every arm sets, so that it is the same whatever the options say: VICReg of the projector, plain moments."""

_EVERY_BLOCK = "backbone.*"


def _layer_wise(objective: str) -> tuple[Any, ...]:
    from lsdr.regularizers.spectral_objective import SpectralObjective

    return (SpectralObjective(objective=objective, layers=_EVERY_BLOCK, views=1, weight=0.1),)


def _arm(
    name: str,
    description: str,
    options: dict[str, Any] | None = None,
    build: Callable[[], tuple[Any, ...]] = tuple,
    number: tuple[str, ...] = ("weight",),
) -> Method:
    # A layer-wise term has a weight of its own, which then is the method's number.
    weight = {"weight": 1.0} if build is tuple else {}
    return Method(name, description, build, {**REPRESENTATION_PLAIN, **weight, **(options or {})}, number=number)


_ARMS = (
    Method("options", "What the options say, and nothing else.", number=()),
    _arm(
        "baseline",
        "VICReg: the codes of two views agree, no direction's variance falls below one, no two are correlated.",
    ),
    _arm(
        "barlow_twins",
        "Barlow Twins: the correlation of the two views' codes goes to the identity.",
        {"objective": "barlow_twins"},
    ),
    _arm(
        "log_participation_ratio",
        "The two views agree, and the codes' variance is spread over as many directions as it can: minus the logarithm "
        "of the participation ratio, which has no scale to set.",
        {"objective": "log_participation_ratio"},
    ),
    _arm(
        "spectral_contrastive",
        "Spectral contrastive loss: views of one example have a large inner product, those of two a small one.",
        {"objective": "spectral_contrastive"},
    ),
    _arm(
        "sigreg",
        "SIGReg (LeJEPA) with a variance term: the two views agree, and the codes are distributed as a round Gaussian.",
        {"objective": "sigreg"},
    ),
    _arm(
        "sim_clr",
        "SimCLR: each view is to tell its partner from all other examples of the batch; the contrastive baseline.",
        {"objective": "sim_clr"},
    ),
    _arm(
        "layer_wise",
        "VICReg, and its variance and covariance terms at every block of the backbone as well (VCReg); weight 0.1.",
        build=partial(_layer_wise, "vicreg"),
    ),
    _arm(
        "layer_wise_log_participation_ratio",
        "VICReg, and the participation ratio at every block of the backbone; weight 0.1.",
        build=partial(_layer_wise, "log_participation_ratio"),
    ),
    _arm(
        "trimmed",
        "VICReg from trimmed moments: the farthest examples of each batch do not count. For data with outliers.",
        {"robust": "trimmed"},
    ),
    _arm(
        "huber",
        "VICReg from Huber's moments: the farther an example lies, the less it counts. For data with outliers.",
        {"robust": "huber"},
    ),
    _arm("clip", "Control: VICReg, the gradient clipped to norm 1.", {"clip": 1.0}, number=("clip",)),
    _arm(
        "weight_decay",
        "Control: VICReg with AdamW's weight decay of 0.01.",
        {"weight_decay": 0.01},
        number=("weight_decay",),
    ),
)

REPRESENTATION_METHODS: dict[str, Method] = {method.name: method for method in _ARMS}
