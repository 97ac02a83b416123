"""Spectral normalisation of residual blocks that are found by name in whatever model comes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from torch import nn

from lsdr.layers.operators import Size
from lsdr.layers.select import Layers
from lsdr.regularizers._normalization_term import NormalizationTerm
from lsdr.regularizers._residual_bounds import Form
from lsdr.regularizers.spectral_normalization import SpectralNormalization

_ATTACHED: WeakKeyDictionary[nn.Module, list[tuple["ResidualNormalization", NormalizationTerm]]] = WeakKeyDictionary()


@dataclass(frozen=True)
class ResidualNormalization:
    r"""Bound residual blocks through the layers of their branches, after every step of the optimiser.

    What `SpectralNormalization.residual` gives for a model, for any model: the layers and their bounds are worked out
    when this is attached. Shortcuts that have weights of their own are left alone; a block x + f(x) keeps the bound,
    one with a shortcut s has :math:`\|s\| + B - 1`.

    Source: Behrmann et al. 2019 (arXiv:1811.00995), theorem 1 and lemma 2, for the sum; `SpectralNormalization` for
    the projection.

    Args:
        branches: Which submodules are branches (see `select_layers`), each a chain that `lipschitz_bound` can follow.
        bound: Of every block.
        form: "sum", "convex" or "lipschitz"; see `SpectralNormalization.residual`.
        size: Image size at the inputs of the branches' layers, the largest of them, for norms of the convolutions
            themselves; None for norms of their kernels.
        tolerance: How far above its bound the norm of a layer may be, relatively: it is taken off.

    Example:
        >>> import torch
        >>> from lsdr.regularizers.attach import attach
        >>> model = nn.ModuleDict({"branch": nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))})
        >>> with attach(model, ResidualNormalization(bound=1.01)):
        ...     gains = [torch.linalg.matrix_norm(model["branch"][place].weight.detach(), 2) for place in (0, 2)]
        >>> bool(gains[0] * gains[1] <= 0.01 * 1.001)
        True
    """

    branches: Layers = "*branch"
    bound: float | int = 2.0
    form: Form = "sum"
    size: Size | None = None
    tolerance: float = 1e-3

    @contextmanager
    def attach(self, model: nn.Module) -> Iterator[NormalizationTerm]:
        """Hold the branches' layers until the context is left; see `lsdr.attach`.

        Raises:
            ValueError: If no branch matches, one cannot be followed, or the bound is out of range for the form.
        """
        with self._held(model).attach(model) as term:
            attached = _ATTACHED.setdefault(model, [])
            attached.append((self, term))
            try:
                yield term
            finally:
                attached[:] = [each for each in attached if each[1] is not term]

    def project_(self, model: nn.Module) -> None:
        """Scale the branches' layers of `model`, in place; from a cold start where this is not attached to it."""
        terms = [term for regularizer, term in _ATTACHED.get(model, []) if regularizer is self]
        if not terms:
            self._held(model).project_(model)
        for term in terms:
            term.project_()

    def _held(self, model: nn.Module) -> SpectralNormalization:
        return SpectralNormalization.residual(
            model, self.branches, self.bound, self.form, size=self.size, tolerance=self.tolerance
        )
