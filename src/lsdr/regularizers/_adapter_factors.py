"""The factors of the adapters that layers have, to be scaled in place."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from lsdr.layers.operators import layer_operator
from lsdr.layers.select import Layers, select_layers
from lsdr.layers.tuners import adapter_operators, is_adapted
from lsdr.linalg.operator import LinearOperator

# Of each kind the factors whose product its delta is: it is of first degree in each. Where one is a product of two
# itself, these are there in its place; a core tensor between two factors is left as it is.
_FACTORS = {
    "LoraLayer": ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B"),
    "LoHaLayer": ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
    "LoKrLayer": ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b"),
}


@dataclass(frozen=True, eq=False)
class Adapter:
    """One active adapter of a layer.

    Attributes:
        base: The layer that is adapted.
        delta: What is added to its weight, as a matrix.
        factors: Those that are trained, or all if none is; the delta is of first degree in each.
        trained: Whether one is.
    """

    base: nn.Module
    delta: LinearOperator
    factors: tuple[nn.Parameter, ...]
    trained: bool


def adapted_layers(model: nn.Module, layers: Layers) -> dict[str, nn.Module]:
    """The adapted layers among those that match, without what is inside of another; empty if there are none."""
    try:
        matching = select_layers(model, layers)
    except ValueError:
        return {}
    found = {name: module for name, module in matching.items() if is_adapted(module)}
    outer = tuple(f"{name}." for name in found)
    return {name: module for name, module in found.items() if not name.startswith(outer)}


def read_adapters(layers: dict[str, nn.Module]) -> dict[str, Adapter]:
    """The active adapters of adapted layers as they are now, by the layer's name, with the adapter's if it has several.

    Raises:
        ValueError: If one does not only add to the weight, is merged into it or of an unknown kind.
    """
    found: dict[str, Adapter] = {}
    for layer, module in layers.items():
        try:
            base, deltas = adapter_operators(module, _multiplied_out)
            named = [each for tuner in _tuners(module) for each in _factors(tuner)]
        except ValueError as error:
            raise ValueError(f"layer {layer!r}: {error}") from error
        for (adapter, factors), delta in zip(named, deltas, strict=True):
            trained = tuple(factor for factor in factors if factor.requires_grad)
            name = layer if len(named) == 1 else f"{layer} ({adapter})"
            found[name] = Adapter(base, delta, trained or factors, bool(trained))
    return found


def _multiplied_out(base: nn.Module, delta: Tensor) -> LinearOperator:
    return layer_operator(base, weight=delta)


def _tuners(module: Any) -> list[Any]:
    """The tuners of a layer, the innermost first, as `adapter_operators` gives their deltas."""
    inner = getattr(module, "base_layer", None)
    return [*(_tuners(inner) if isinstance(inner, nn.Module) and is_adapted(inner) else []), module]


def _factors(tuner: Any) -> list[tuple[str, tuple[nn.Parameter, ...]]]:
    """Names of the active adapters and their factors."""
    classes = {each.__name__ for each in type(tuner).__mro__}
    if "BaseTunerLayer" not in classes:  # LoRA of diffusers itself
        return [("lora_layer", (tuner.lora_layer.down.weight, tuner.lora_layer.up.weight))]
    if tuner.merged:
        raise ValueError("its adapters are merged into the weight, so that their factors change nothing: unmerge them")
    if tuner.disable_adapters:
        return []
    kind = next((each for each in _FACTORS if each in classes), None)
    if kind is None or "AdaLoraLayer" in classes:
        raise ValueError(
            f"{type(tuner).__name__} of {type(tuner).__module__} is none of LoRA, LoHa and LoKr, whose factors can be "
            "scaled: leave the layer out"
        )
    active = [name for name in tuner.active_adapters if name in tuner._get_available_adapters()]
    return [(name, _of_adapter(tuner, name, _FACTORS[kind])) for name in active]


def _of_adapter(tuner: Any, adapter: str, roles: tuple[str, ...]) -> tuple[nn.Parameter, ...]:
    found: list[Any] = [getattr(tuner, role)[adapter] for role in roles if adapter in getattr(tuner, role)]
    return tuple(each if isinstance(each, nn.Parameter) else each.weight for each in found)
