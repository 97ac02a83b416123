"""Bounds of layers from the bound of a residual block."""

import math
from collections.abc import Mapping
from typing import Literal, get_args

from torch import nn

from lsdr.layers.operators import Size
from lsdr.probes.weights import WEIGHTED
from lsdr.regularizers._lipschitz_layers import CONVOLUTIONS, TRANSPOSED, kernel_multiplicity
from lsdr.regularizers.lipschitz_bound import lipschitz_bound

Form = Literal["sum", "convex", "lipschitz"]


def residual_bounds(
    model: nn.Module, branches: Mapping[str, nn.Module], bound: float, form: Form, size: Size | None, tolerance: float
) -> dict[str, float]:
    """The bound of each weighted layer by name; see `SpectralNormalization.residual`."""
    if form not in get_args(Form):
        raise ValueError(f"form must be one of {', '.join(map(repr, get_args(Form)))}, got {form!r}")
    least = {"sum": 1.0, "convex": 1.0, "lipschitz": 0.0}[form]
    if not (math.isfinite(bound) and bound >= least and (form == "convex" or bound > least)):
        least_word = "at least" if form == "convex" else "above"
        raise ValueError(f"bound must be finite and {least_word} {least:g} for {form!r}, got {bound}")
    share = bound - 1 if form == "sum" else bound
    bounds: dict[str, float] = {}
    for name, branch in branches.items():
        layers = {key: each for key, each in branch.named_modules() if isinstance(each, WEIGHTED)}
        if not layers:
            raise ValueError(f"branch {name!r} ({type(branch).__name__}) has no layer with a weight to bound")
        rest = lipschitz_bound(branch, constants=dict.fromkeys(layers, 1.0)).bound
        if not 0 < rest < math.inf:
            raise ValueError(f"what is in branch {name!r} besides its layers has Lipschitz constant {rest}")
        each_bound = (share / rest) ** (1 / len(layers)) / (1 + tolerance)
        held = lipschitz_bound(branch, constants=dict.fromkeys(layers, each_bound * (1 + tolerance))).bound
        if held > share * (1 + 1e-9):
            raise ValueError(
                f"branch {name!r} is no chain: with its {len(layers)} layers at {each_bound:.3g} it could still "
                f"stretch by {held:.3g}, over {share:.3g}. Name a part without skip connections and layers used twice"
            )
        for key, layer in layers.items():
            loss = 1.0
            if size is None and isinstance(layer, CONVOLUTIONS + TRANSPOSED):
                loss = math.sqrt(kernel_multiplicity(layer))
            path = ".".join(filter(None, (name, key)))
            bounds[path] = min(each_bound / loss, bounds.get(path, math.inf))  # of branches within branches, all hold
    return bounds
