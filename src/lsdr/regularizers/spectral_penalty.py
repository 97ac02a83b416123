"""Spectral penalty: a function of the singular values of chosen layers' weights, added to the loss."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import Tensor, nn

from lsdr.layers.capture import capture
from lsdr.layers.select import select_layers
from lsdr.probes.weights import WeightProbe
from lsdr.regularizers._spectral_penalty_term import SpectralPenaltyTerm
from lsdr.regularizers.spectral_penalties import Shape, hinge


@dataclass(frozen=True)
class SpectralPenalty:
    r"""Penalise the singular values of chosen layers' weights.

    .. math:: P = \frac{w}{|\text{layers}|} \sum_l h(\sigma^l), \qquad
        \frac{\partial \sigma_k}{\partial W} = u_k v_k^\top

    with h from `hinge`, `log_barrier`, `spread` or `target_slope` (or your own `Shape`). The vectors come from an
    eigendecomposition of the layer's float64 Gram matrix in every call: no power iteration lags behind the weights, and
    the gradient is exact: of h of simple singular values, and of symmetric h whatever their multiplicity. (Where the
    largest value is not simple it has no gradient, and u v' is one of its subgradients.) Layers that pay nothing are
    measured and cost no backward pass. Zeros give zero or finite gradients, weights that are not finite give NaN.

    The forward passes are not looked at; with micro-batches under `penalty.observe()` the K calls' gradients add up to
    one penalty, as their values do. Without `observe`, each call is a whole penalty.

    Cost: m^2 n + m^3 for a matrix of m x n, m <= n, of each layer and call.

    Source: Yoshida & Miyato 2017 (arXiv:1705.10941), eq. 8, for the sum of squares of the largest values and their
    gradient, there with one step of power iteration and without a bound.

    Args:
        probe: Which layers (`layers`, `types`), and which operator of convolutions: `"reshape"`, by groups, or
            `"zero_padded"` with its `size`, for penalties on the largest value alone.
        penalty: h.
        weight: w, finite and not negative. 0 computes everything and adds exactly nothing.

    Raises:
        ValueError: If an argument is out of range, or the probe's operator is another.

    Example:
        >>> import torch
        >>> from lsdr.regularizers.attach import attach
        >>> model = nn.Sequential(nn.Linear(3, 8), nn.SiLU(), nn.Linear(8, 1))
        >>> with attach(model, SpectralPenalty(penalty=hinge(0.1), weight=0.5)) as penalty:
        ...     loss = model(torch.randn(4, 3)).square().mean() + penalty()
        ...     loss.backward()
        >>> list(penalty.values)
        ['SpectralPenalty/0', 'SpectralPenalty/2']
    """

    probe: WeightProbe = field(default_factory=WeightProbe)
    penalty: Shape = field(default_factory=lambda: hinge(1.0))
    weight: float | int = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise ValueError(f"weight must be finite and not negative, got {self.weight}")
        if self.probe.operator not in ("reshape", "zero_padded"):
            raise ValueError(f"a penalty needs operator 'reshape' or 'zero_padded', got {self.probe.operator!r}")
        if self.probe.operator == "zero_padded" and (self.penalty.full or self.probe.size is None):
            raise ValueError("operator 'zero_padded' needs a size, and a penalty on the largest value alone")

    @contextmanager
    def attach(self, model: nn.Module) -> Iterator[SpectralPenaltyTerm]:
        """Watch the layers until the context is left; see `lsdr.attach`.

        Raises:
            ValueError: If no layer matches, or a weight cannot be read.
        """
        selected = select_layers(model, self.probe.layers, self.probe.types)
        size = self.probe.size if self.probe.operator == "zero_padded" else None
        term = SpectralPenaltyTerm(selected, self.penalty, float(self.weight), size)

        def count(name: str, module: nn.Module, output: Tensor) -> None:
            term.ran()

        with capture(model, {"": model}, count):
            try:
                yield term
            finally:
                term.forget()

    def project_(self, model: nn.Module) -> None:
        """Do nothing: a penalty constrains no parameter."""
