"""Adapter normalisation: hold what LoRA, LoHa or LoKr add to chosen layers at or under a norm."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import get_args
from weakref import WeakKeyDictionary

from torch import nn

from lsdr.layers.select import Layers, select_layers
from lsdr.regularizers._adapter_factors import adapted_layers
from lsdr.regularizers._adapter_normalization_term import AdapterNormalizationTerm
from lsdr.regularizers._adapter_norms import Norm

# What is attached where. A regularizer is a plain frozen value; what it remembers of a model is here.
_ATTACHED: WeakKeyDictionary[nn.Module, list[tuple["AdapterNormalization", AdapterNormalizationTerm]]]
_ATTACHED = WeakKeyDictionary()


@dataclass(frozen=True)
class AdapterNormalization:
    r"""Hold the norm of what an adapter adds to each layer, exactly, after every step of the optimiser.

    .. math:: \Delta \leftarrow \Delta \cdot \min\Bigl(1, \frac{b}{\|\Delta\|}\Bigr), \qquad
        \Delta = s\, B A,\quad s\, (B_1 A_1) \circ (B_2 A_2)\ \text{ or }\ s\, W_1 \otimes W_2

    A projection like `SpectralNormalization`, of the change alone: the base weights are never touched, so that the
    saved adapter with the base model is what was trained. It is called after the optimiser's step
    (`Penalty.project_`) and once when attached. Each of the k factors is scaled by the k-th root of the ratio: the
    balance between them stays. A delta within its bound is not touched, nor is one of zeros; one that is not finite is
    left for the training loop to notice. No norm is more than 1e-6 above its bound afterwards, in half precision too.

    Each active adapter of a layer is held by itself. While some adapters are trained, frozen ones are left alone; a
    factor that is frozen in an adapter that is trained is left alone and the others take its share. Weights that are
    not adapted are not touched.

    **norm**

    - `"spectral"`: the largest singular value: the most that a layer's input can be changed by, relatively.
    - `"frobenius"`: the root of the sum of squares. With `relative=False` this is the max-norm regularisation
      (`scale_weight_norms`) of kohya's trainer, where the usual bound is 1.

    **relative**: the bound times the norm of the weight that is adapted, measured once. A layer's largest singular
    value is then between 1 - b and 1 + b times what it was (spectral).

    Convolutions are taken as matrices (`"reshape"`, see `layer_operator`). Cost for LoRA: :math:`(m + n) r^2`
    multiplications a layer in float64 and one transfer for all layers of a rank. Of LoHa and LoKr all singular values
    are found from the factors (`exact_singular_values`), which at high rank takes as long as a step: prefer
    `"frobenius"` there.

    Source: kohya-ss/sd-scripts, `apply_max_norm_regularization` of networks/lora.py, for "frobenius"; there the norm is
    taken in the factors' own type, here in float64. Gouk et al. 2018 (arXiv:1804.04368), algorithm 2, for the
    projection.

    Args:
        layers: Which layers (see `select_layers`), of those that are adapted.
        bound: b, positive: in the units of the weight, or of the base's norm.
        norm: See above.
        relative: See above.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> import peft, torch
        >>> from lsdr.regularizers.attach import attach
        >>> model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))
        >>> model = peft.inject_adapter_in_model(peft.LoraConfig(r=2, target_modules=["0"]), model)
        >>> optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1.0)
        >>> with attach(model, AdapterNormalization(bound=0.5)) as penalty:
        ...     for _ in range(3):
        ...         optimizer.zero_grad()
        ...         (model(torch.ones(4, 6)).square().mean() + penalty()).backward()
        ...         optimizer.step()
        ...         penalty.project_()
        >>> float(torch.linalg.matrix_norm(model[0].get_delta_weight("default").detach(), 2))
        0.5
    """

    layers: Layers = "*"
    bound: float | int = 1.0
    norm: Norm = "spectral"
    relative: bool = False

    def __post_init__(self) -> None:
        if self.norm not in get_args(Norm):
            raise ValueError(f"norm must be one of {', '.join(map(repr, get_args(Norm)))}, got {self.norm!r}")
        if not (math.isfinite(self.bound) and self.bound > 0):
            raise ValueError(f"bound must be finite and positive, got {self.bound}")

    @contextmanager
    def attach(self, model: nn.Module) -> Iterator[AdapterNormalizationTerm]:
        """Hold the adapted layers until the context is left; see `lsdr.attach`.

        Raises:
            ValueError: If no adapted layer matches, or one's adapter cannot be scaled.
        """
        term = self._term(model)
        attached = _ATTACHED.setdefault(model, [])
        attached.append((self, term))
        try:
            yield term
        finally:
            attached[:] = [each for each in attached if each[1] is not term]

    def project_(self, model: nn.Module) -> None:
        """Scale the adapters of `model`, in place; base norms are measured anew where this is not attached to it."""
        terms = [term for regularizer, term in _ATTACHED.get(model, []) if regularizer is self]
        if not terms:
            self._term(model)
        for term in terms:
            term.project_()

    def _term(self, model: nn.Module) -> AdapterNormalizationTerm:
        selected = adapted_layers(model, self.layers)
        if not selected:
            matching = select_layers(model, self.layers)
            raise ValueError(
                f"none of the {len(matching)} layers that match {self.layers!r} is adapted (LoRA, LoHa or LoKr by "
                "peft): add the adapters before attaching, or hold whole weights with SpectralNormalization"
            )
        return AdapterNormalizationTerm(selected, dict.fromkeys(selected, float(self.bound)), self.norm, self.relative)
