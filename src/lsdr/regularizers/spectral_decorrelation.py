"""Spectral decorrelation: penalise the squared covariance of a layer's features."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import get_args

from torch import nn

from lsdr.layers.capture import capture
from lsdr.layers.select import Layers, select_outermost
from lsdr.regularizers._decorrelation_term import DecorrelationTerm
from lsdr.regularizers._decorrelation_value import Estimator, Positions, Recipe
from lsdr.regularizers._squared_covariance import Form


@dataclass(frozen=True)
class SpectralDecorrelation:
    r"""Decorrelate the channels of chosen layers: a penalty on the squared covariance of their features.

    .. math:: L = \sum_{ij} \Bigl( \tfrac1N \sum_n \langle z_i^n, z_j^n \rangle
        - \tfrac1{N^2} \sum_{nm} \langle z_i^n, z_j^m \rangle \Bigr)^2 = \|C\|_F^2

    with :math:`z_i^n` channel i of sample n. The double sum is N^2 times the inner product of the means, so that
    centring first gives the same C in O(N D^2) (`positions` says what a sample is) and pairs are never formed. With
    fewer samples than channels :math:`\|C\|_F^2 = \|X X'\|_F^2 / N^2` is used, in O(N^2 D). The penalty is the weight
    times the mean over layers; float32 at least, whatever autocast says.

    **form**

    - `"as_written"`: L itself, diagonal included: it also shrinks every channel's variance. Non-negative (units of
      the feature to the fourth), invariant to rotations of the channels.
    - `"covariance"`: off-diagonal only, divided by D: VICReg's covariance term (eqs. 3 and 4; with `"plug_in"`
      it divides by N where VICReg has N - 1). A layer can still lower it by shrinking its features, and a
      normalisation behind the layer undoes the shrinking, so that nothing is decorrelated.
    - `"correlation"` (default): the mean squared off-diagonal correlation, in [0, 1], dimensionless, invariant to the
      scale of each channel as long as standard deviations are far above 1e-3, plus a hinge
      mean(relu(variance_floor - sd)) that keeps channels from dying. VICReg's floor of 1 sets the scale of embeddings
      that only its loss sees; hidden features have the scale their next layer was trained for, so the floor is small
      and touches channels near collapse alone.

    **estimator** of the squared covariance:

    - `"plug_in"`: of the batch's covariance. Biased upwards: d independent unit features give about
      d(d-1)(N-1)/N^2 in place of 0 (441 for N = 8, d = 64). One sample gives covariance 0.
    - `"split_half"`: :math:`\langle C_1, C_2 \rangle` of samples of even and odd number (counted over ranks, then over
      forwards). Unbiased (correlations: exactly 0 in the mean for independent channels), can be negative, and has
      the highest variance. At least two samples a half.
    - `"u_statistic"`: mean over all 4-tuples of distinct samples, by sums (Himeno & Yamada 2014). Unbiased as above
      with less variance; needs every sample at once, so no `observe`. At least 4 samples.

    "Unbiased" is meant for independent samples; the positions of one image are not.

    Values are global: over all ranks, over the forwards since the last call, and over the chunks of `observe`. The
    gradient is that of the global value once ranks are averaged, as DistributedDataParallel does. NaN or infinite
    features give NaN.

    Source: the founding formula; VICReg, Bardes et al. 2022 (arXiv:2105.04906); per layer: VCReg, Zhu et al. 2023
    (arXiv:2306.13292).

    Args:
        layers: Which layers' outputs (see `select_layers`). Of what one glob matches, the outermost layers are
            taken: `"mid_block*"` is the block's output, `"mid_block.*"` the outputs of its parts. A regular expression
            or a predicate is taken at its word.
        weight: Factor of the penalty, finite and non-negative. 0 computes everything and adds exactly nothing.
        form: See above.
        estimator: See above.
        positions: `"samples"`: every position of every image is a sample of its channels. `"inner_product"`: the
            formula's own reading: a channel is a vector over positions, centred per position; covariances sum over
            positions. For features (N, D) both are the same.
        variance_floor: Least standard deviation (root mean square over positions) that the hinge leaves alone.
        channel_dim: Which dimension of the features holds channels. None: 1, but the last for tokens (N, T, D) and
            behind linear layers and layer norms.

    Raises:
        ValueError: If an argument is out of range, or `"u_statistic"` meets `"inner_product"` (it is defined for
            scalar features).

    Example:
        >>> import torch
        >>> from lsdr.regularizers.attach import attach
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Conv2d(8, 3, 3))
        >>> with attach(model, SpectralDecorrelation(layers="1", weight=0.1)) as penalty:
        ...     loss = model(torch.randn(4, 3, 8, 8)).square().mean() + penalty()
        ...     loss.backward()
        >>> list(penalty.values)
        ['SpectralDecorrelation/1']
    """

    layers: Layers = "mid_block*"
    weight: float | int = 0.1
    form: Form = "correlation"
    estimator: Estimator = "plug_in"
    positions: Positions = "samples"
    variance_floor: float | int = 0.01
    channel_dim: int | None = None

    def __post_init__(self) -> None:
        _check_choice("form", self.form, get_args(Form))
        _check_choice("estimator", self.estimator, get_args(Estimator))
        _check_choice("positions", self.positions, get_args(Positions))
        for name in ("weight", "variance_floor"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be finite and not negative, got {value}")
        if self.estimator == "u_statistic" and self.positions == "inner_product":
            raise ValueError(
                "estimator='u_statistic' is defined for scalar features; "
                "use estimator='split_half' with positions='inner_product', or positions='samples'"
            )

    @contextmanager
    def attach(self, model: nn.Module) -> Iterator[DecorrelationTerm]:
        """Watch the layers until the context is left; see `lsdr.attach`.

        Raises:
            ValueError: If no layer matches.
        """
        selected = select_outermost(model, self.layers)
        recipe = Recipe(self.form, self.estimator, self.positions, self.variance_floor)
        term = DecorrelationTerm(selected, recipe, self.weight, self.channel_dim)
        with capture(model, selected, term.receive):
            try:
                yield term
            finally:
                term.forget()

    def project_(self, model: nn.Module) -> None:
        """Do nothing: decorrelation constrains no parameter."""


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
