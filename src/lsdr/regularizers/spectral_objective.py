"""Spectral objective: a representation learnt from the moments of its two views."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lsdr.layers.capture import capture
from lsdr.layers.select import Layers, select_outermost
from lsdr.regularizers._spectral_objective_term import SpectralObjectiveTerm, sketch_of
from lsdr.regularizers._view_sums import ViewSums
from lsdr.regularizers.objectives.catalogue import objective_of
from lsdr.regularizers.objectives.objective import Objective


@dataclass(frozen=True)
class SpectralObjective:
    r"""Learn a representation without labels: an objective of the moments of chosen layers' outputs.

    The model runs once on a batch of 2 b rows, of which row i and row b + i are two views of one example. Each
    objective is a function of sums over examples, of

    .. math:: n, \quad \sum z, \quad \sum z', \quad \sum z z^\top, \quad \sum z' z'^\top, \quad \sum z z'^\top

    - `"vicreg"` (default), `"barlow_twins"`, `"log_participation_ratio"`, `"spectral_contrastive"`: of these;
    - `"sigreg"`: of characteristic functions along random directions, the same for all of a step and others in the
      next;

    so that values and gradients are those of the batch of all ranks and all micro-batches (`Penalty.observe`), at any
    uneven cut: the statistics are summed first, the objective is differentiated by them once, and each chunk is given
    its part of the gradient. Beyond the model's own memory that takes O(D^2) (SIGReg: O(D K)), none that grows with the
    batch; over ranks one collective a step for all layers, none in the backward pass. The gradient is that of the
    global value once ranks are averaged, as DistributedDataParallel does. Statistics are float32 at least, whatever
    autocast says. Second derivatives are not to be had.

    The values are recorded by layer ("projector") and by term ("projector/invariance", ...), the terms without
    their coefficients.

    Source: see the objectives (`lsdr.regularizers.objectives`). The two passes: Gao et al. 2021 (arXiv:2101.06983), who
    keep every representation.

    Args:
        objective: A name, with its default coefficients, or an objective itself: `VICReg(invariance=10)`.
        layers: Which layers' outputs (see `select_outermost`). Positions of feature maps and tokens are examples.
        views: 2, or 1 for any layer of any model: each row is then its own second view, so that the invariance is
            perfect and only what spreads the representation is left.
        weight: Factor of the mean over layers, finite and not negative. 0 computes everything and adds exactly nothing.
        robust: `"none"`; `"trimmed"`: examples more than twice as far from the mean as the quantile 1 - trim of the
            distances was in the last step do not count; `"huber"`: those d times as far as that quantile count
            1 / d^2. The gradient takes these weights as given.
        trim: Share of examples that may be outliers.
        channel_dim: Which dimension of an output holds channels. None: 1, but the last for tokens (N, T, D) and behind
            linear layers and layer norms.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> from lsdr.regularizers.attach import attach
        >>> model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4))
        >>> rows = torch.randn(16, 3)
        >>> with attach(model, SpectralObjective("vicreg", layers="2")) as penalty:
        ...     _ = model(torch.cat([rows, rows + 0.1 * torch.randn(16, 3)]))
        ...     penalty().backward()
        >>> list(penalty.values)[:2]
        ['SpectralObjective/2', 'SpectralObjective/2/invariance']
    """

    objective: str | Objective = "vicreg"
    layers: Layers = "projector"
    _: KW_ONLY
    views: int = 2
    weight: float | int = 1.0
    robust: Literal["none", "trimmed", "huber"] = "none"
    trim: float = 0.2
    channel_dim: int | None = None

    def __post_init__(self) -> None:
        objective_of(self.objective)
        if self.views not in (1, 2):
            raise ValueError(f"views must be 1 or 2, got {self.views}")
        if self.robust not in ("none", "trimmed", "huber"):
            raise ValueError(f"robust must be 'none', 'trimmed' or 'huber', got {self.robust!r}")
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise ValueError(f"weight must be finite and not negative, got {self.weight}")
        if not 0 < self.trim <= 0.5:
            raise ValueError(f"trim must be in (0, 0.5], got {self.trim}")

    @contextmanager
    def attach(self, model: nn.Module) -> Iterator[SpectralObjectiveTerm]:
        """Watch the layers until the context is left; see `lsdr.attach`.

        Raises:
            ValueError: If no layer matches.
        """
        selected = select_outermost(model, self.layers)
        robust = None if self.robust == "none" else self.robust
        term = SpectralObjectiveTerm(
            selected, objective_of(self.objective), self.views, self.weight, robust, self.trim, self.channel_dim
        )
        with capture(model, selected, term.receive):
            try:
                yield term
            finally:
                term.forget()

    def project_(self, model: nn.Module) -> None:
        """Do nothing: the objective constrains no parameter."""

    def of(self, x: Float[Tensor, "n d"], y: Float[Tensor, "_ _"] | None = None) -> dict[str, Float[Tensor, ""]]:
        """The objective of rows at hand, without a model, weights or gradient, and with SIGReg's first directions.

        Args:
            x: The first view's rows.
            y: The second view's, or None for one view.

        Returns:
            "objective" and its terms by name.

        Raises:
            ValueError: If the views differ in shape or hold fewer than 2 rows.

        Example:
            >>> x = torch.tensor([[0.0], [2.0]])
            >>> {name: float(value) for name, value in SpectralObjective().of(x, x + 1).items()}
            {'objective': 25.0, 'invariance': 1.0, 'variance': 0.0, 'covariance': 0.0}
        """
        if x.ndim != 2 or len(x) < 2 or (y is not None and x.shape != y.shape):
            shapes = tuple(x.shape) if y is None else f"{tuple(x.shape)} and {tuple(y.shape)}"
            raise ValueError(f"expected rows (N, D), N at least 2, as many in both views, got shape {shapes}")
        objective = objective_of(self.objective)
        wide = torch.promote_types(x.dtype, torch.float32)
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            rows = torch.stack([each.to(wide) for each in (x, y) if each is not None])
            sketch = sketch_of(objective, 0, rows)
            value, terms = objective(ViewSums.of(sketch.prepare(rows), sketch).views())
        return {"objective": value, **terms}
