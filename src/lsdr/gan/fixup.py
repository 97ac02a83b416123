"""Fixup: an initialisation with which residual networks train without normalisation."""

import torch
from torch import nn

from lsdr.layers.select import Layers, select_layers

_WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@torch.no_grad()
def fixup_(model: nn.Module, branches: Layers = "*.branch", slope: float = 0.0) -> int:
    r"""Initialise the branches of a residual network, in place.

    Of a branch with m layers the last starts at zero, and the others as He et al. would start them, times

    .. math:: L^{-\frac{1}{2m - 2}}

    with L branches in the model, so that one step of gradient descent changes the output by as much as one step of
    a shallow network. Weights are drawn from torch's global generator; biases become zero. The last layer of a branch
    is better without one: L of them move the output L times as far.

    Source: Zhang et al. 2019 (arXiv:1901.09321), section 3, rules 1 and 2; rule 3 (a learned scalar in each branch and
    in front of each layer) is left out, as in R3GAN (Huang et al. 2024, arXiv:2501.05441): layers
    have biases.

    Args:
        model: The model, plain layers in its branches.
        branches: Which submodules are branches (see `select_layers`).
        slope: Of the leaky ReLUs in them, for He's gain; 0 for ReLU.

    Returns:
        L, the number of branches.

    Raises:
        ValueError: If nothing matches, or a branch has fewer than two layers.

    Example:
        >>> model = nn.Module()
        >>> model.branch = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
        >>> fixup_(model, "branch")
        1
        >>> float(model.branch(torch.randn(3, 4)).detach().abs().max())
        0.0
    """
    selected = select_layers(model, branches)
    for name, branch in selected.items():
        layers = [layer for layer in branch.modules() if isinstance(layer, _WEIGHTED)]
        if len(layers) < 2:
            raise ValueError(f"branch {name!r} has {len(layers)} layers with weights; Fixup is for two or more")
        for layer in layers:
            nn.init.kaiming_normal_(layer.weight, slope)
            layer.weight *= len(selected) ** (-1 / (2 * len(layers) - 2))
            if layer.bias is not None:
                layer.bias.zero_()
        layers[-1].weight.zero_()
    return len(selected)
