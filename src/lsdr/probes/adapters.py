"""What adapters (LoRA, LoHa, LoKr) add to the layers that they are on, while they are trained."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from lsdr.layers.operators import layer_operator
from lsdr.layers.select import Layers, select_layers
from lsdr.layers.tuners import adapter_operators, is_adapted
from lsdr.layers.weight import read_weight
from lsdr.linalg.combine import Sum
from lsdr.linalg.exact import exact_singular_values
from lsdr.linalg.frobenius import frobenius
from lsdr.linalg.kronecker import Kronecker
from lsdr.linalg.lanczos import lanczos
from lsdr.linalg.low_rank import LowRank
from lsdr.linalg.operator import LinearOperator
from lsdr.probes._adapter_directions import BaseDirections
from lsdr.statistics.effective_rank import effective_rank

_FEW = 1 << 22  # entries of a change that is written out where its structure gives no shorter way


@dataclass
class _Known:
    """What a probe and its narrowed copies know of the bases, and where they search from."""

    bases: dict[str, tuple[Tensor, int, BaseDirections]] = field(default_factory=dict)
    starts: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class AdapterProbe:
    r"""Size of what adapters add to each layer, and what that makes of the layer's weight; measuring changes nothing.

    For the change :math:`\Delta` (:math:`s B A` of a LoRA; the sum of the active adapters) of a weight :math:`W_0`:

    - "key_norm": :math:`\|\Delta\|_F`, in the units of the weight. What trainers log as the key norm.
    - "sigma_max": the largest singular value of the change; "effective_rank": of its singular values, 0 to the rank.
    - "sigma_over_base": "sigma_max" over that of the base. Without units: the same for every layer and learning rate.
    - "intruder_dimensions": how many of the ten largest left singular vectors of :math:`W_0 + \Delta` have a cosine
      below 0.5 with all those of :math:`W_0`; "new_directions": how many of these the base hardly uses. As in
      `lsdr.inspection.compare.delta`, which has the formulas.

    A change that is not finite has "nonfinite", how many of its entries are, and nothing else.

    Cost: the change's values from its factors, :math:`(m + n) r^2` multiplications. For the others the base's twenty
    largest directions once, and each time the ten largest of the sum, by Krylov spaces that start where the last ones
    ended: about a hundred products with the weight. All directions of a base are found (:math:`m^3`) and kept in half
    precision when a direction turns up that is none of its largest. Matrices with a side of up to 256 are decomposed
    whole. The base must be frozen or is measured anew when it has changed.

    The probe remembers the bases: use one for one model.

    Source: intruder dimensions of Shuttleworth et al. (arXiv:2410.21228), algorithm 1.

    Args:
        layers: Glob, several globs, regular expression or predicate (see `select_layers`); of what matches, the
            adapted layers are taken.
        base: Whether to compare with the base: the last three values.

    Example:
        >>> import peft
        >>> config = peft.LoraConfig(r=2, lora_alpha=2, target_modules=["0"], init_lora_weights=False)
        >>> model = peft.inject_adapter_in_model(config, nn.Sequential(nn.Linear(4, 4)))
        >>> for factor in (model[0].lora_A, model[0].lora_B):
        ...     _ = factor["default"].weight.data.fill_(0.5)
        >>> AdapterProbe(base=False)(model)
        {'0': {'key_norm': 2.0, 'sigma_max': 2.0, 'effective_rank': 1.0}}
    """

    layers: Layers = "*"
    base: bool = True
    only: Collection[str] | None = None
    """Names to measure now, of those that match; None for all."""
    known: _Known = field(default_factory=_Known, repr=False, compare=False)
    prefix: ClassVar[str] = "lora"

    def select(self, model: nn.Module) -> dict[str, nn.Module]:
        """The adapted layers that would be measured, by name.

        Raises:
            ValueError: If there are none among those that match.
        """
        matching = select_layers(model, self.layers)
        adapted = {name: module for name, module in matching.items() if is_adapted(module)}
        outer = tuple(f"{name}." for name in adapted)
        selected = {name: module for name, module in adapted.items() if not name.startswith(outer)}
        if not selected:
            raise ValueError(
                f"none of the {len(matching)} layers that match {self.layers!r} is adapted (LoRA, LoHa, LoKr, ...): "
                "add the adapters first, or measure the weights with WeightProbe"
            )
        return selected

    def narrow(self, names: Collection[str]) -> "AdapterProbe":
        """The same probe, with what it knows of the bases, for some of its layers."""
        return replace(self, only=frozenset(names))

    def __call__(self, model: nn.Module) -> dict[str, dict[str, float]]:
        """Measure now.

        Args:
            model: Plain, compiled or wrapped; the same at each call.

        Returns:
            Values of each layer by name.

        Raises:
            ValueError: If no adapted layer matches, or an adapter does not only add to its weight, is merged or
                switched off; the message names the layer.
        """
        measured = {}
        for name, module in self.select(model).items():
            if self.only is None or name in self.only:
                try:
                    measured[name] = self._measure(name, module)
                except ValueError as error:
                    raise ValueError(f"layer {name!r}: {error}") from error
        return measured

    def state_dict(self) -> dict[str, Tensor]:
        """Where the searches start from, for a checkpoint of their own."""
        return dict(self.known.starts)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from there."""
        self.known.starts = dict(state)

    @torch.no_grad()
    def _measure(self, name: str, module: nn.Module) -> dict[str, float]:
        base, deltas = adapter_operators(module, lambda layer, weight: layer_operator(layer, weight=weight))
        if not deltas:
            raise ValueError("its adapters are merged into the weight or switched off: there is no change to measure")
        change = deltas[0] if len(deltas) == 1 else Sum(*deltas)
        bad = sum(int((~factor.isfinite()).sum()) for factor in _factors(module, base))
        if bad:
            return {"nonfinite": float(bad)}
        values = _values_of(change)
        if not self.base:
            return values
        known = self._known(name, base)
        if known.sigma > 0:
            values["sigma_over_base"] = values["sigma_max"] / known.sigma
            if values["sigma_max"] == 0:
                return values | {"intruder_dimensions": 0.0, "new_directions": 0.0}
            directions, start = known.compare(Sum(known.operator, *deltas), self.known.starts.get(name))
            if start is not None:
                self.known.starts[name] = start
            values["intruder_dimensions"] = float(directions.intruders())
            values["new_directions"] = float(directions.new())
        return values

    def _known(self, name: str, base: nn.Module) -> BaseDirections:
        weight = read_weight(base)
        last, version, known = self.known.bases.get(name, (None, -1, None))
        if known is None or last is None or last.data_ptr() != weight.data_ptr() or version != weight._version:
            if not bool(weight.isfinite().all()):
                raise ValueError("the base's weights are not finite")
            known = BaseDirections.of(layer_operator(base, weight=weight))
            self.known.bases[name] = weight, weight._version, known
        return known


def _values_of(change: LinearOperator) -> dict[str, float]:
    """Norms and effective rank of a change; the rank only where all its values are affordable."""
    size = frobenius(change)
    if size == 0:
        return {"key_norm": 0.0, "sigma_max": 0.0, "effective_rank": 0.0}
    if isinstance(change, LowRank | Kronecker) or math.prod(change.shape) <= _FEW:
        spectrum = exact_singular_values(change)
        rank = {"effective_rank": float(effective_rank(spectrum))}
    else:
        spectrum = lanczos(change, generator=torch.Generator().manual_seed(0))
        rank = {}
    return {"key_norm": size, "sigma_max": float(spectrum.values[0])} | rank


def _factors(module: nn.Module, base: nn.Module) -> list[Tensor]:
    """The adapters' tensors: all of the adapted layer's but the base's."""
    own = {id(parameter) for parameter in base.parameters()}
    return [parameter.detach() for parameter in module.parameters() if id(parameter) not in own]
