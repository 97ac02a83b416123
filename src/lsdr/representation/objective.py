"""The objective of a configuration: what is hooked to the projector, and its value on given outputs."""

from collections.abc import Callable

import torch
from torch import Tensor

from lsdr.regularizers.regularizer import Regularizer
from lsdr.regularizers.spectral_objective import SpectralObjective
from lsdr.representation.config import RepresentationConfig
from lsdr.representation.objectives.sim_clr import sim_clr


def objective_regularizers(config: RepresentationConfig) -> tuple[Regularizer, ...]:
    """The objective as a regularizer on the projector's outputs of two views; none for SimCLR, the task's own loss.

    Args:
        config: Objective, weight and robustness.
    """
    return () if config.objective == "sim_clr" else (_spectral(config),)


def objective_value(config: RepresentationConfig) -> Callable[[Tensor, Tensor], float]:
    """The objective as a function of the projector's outputs of two views, shapes (n, D): a number, unweighted.

    Of the rows of this process alone, without a collective.

    Args:
        config: Objective and robustness.
    """
    spectral = None if config.objective == "sim_clr" else _spectral(config)

    @torch.no_grad()
    def value(a: Tensor, b: Tensor) -> float:
        return float(sim_clr(a, b, gather=False).mean() if spectral is None else spectral.of(a, b)["objective"])

    return value


def _spectral(config: RepresentationConfig) -> SpectralObjective:
    return SpectralObjective(
        objective=config.objective, layers="projector", views=2, weight=config.weight, robust=config.robust
    )
