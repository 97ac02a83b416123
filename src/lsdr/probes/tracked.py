"""The largest singular values of all weights, followed from one measurement to the next."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from lsdr.layers.operators import layer_operator
from lsdr.layers.select import Layers, select_layers
from lsdr.layers.tuners import is_adapted
from lsdr.linalg.frobenius import frobenius
from lsdr.linalg.operator import LinearOperator
from lsdr.linalg.tracking import Tracker
from lsdr.spectrum import Spectrum


class _Live(LinearOperator):
    """A weight that is computed (parametrized, adapted, in groups), as it was at the last `refresh`."""

    def __init__(self, module: nn.Module):
        self._module = module
        self.now = layer_operator(module)
        super().__init__(self.now.shape, self.now.dtype, self.now.device)

    def refresh(self) -> None:
        """Compute it anew."""
        self.now = layer_operator(self._module)

    def matvec(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        """A x, for each vector x."""
        return self.now.matvec(x)

    def adjoint(self, y: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        """A transposed times y, for each vector y."""
        return self.now.adjoint(y)

    def gram(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        """A'A x, for each vector x."""
        return self.now.gram(x)


@dataclass
class _Followed:
    """What a probe and its narrowed copies share."""

    tracker: Tracker | None = None
    weights: dict[str, Tensor | _Live] = field(default_factory=dict)
    waiting: Mapping[str, Tensor] = field(default_factory=dict)
    """A state to take up when there is a tracker."""


@dataclass(frozen=True)
class TrackedWeightProbe:
    """Largest singular values and stable ranks of the weights of chosen layers; measuring changes nothing.

    The first time a layer is measured its values are found by Lanczos, within 1% but for one layer in a thousand;
    afterwards one product with the weight, started from the last singular vectors, follows them (see `Tracker`). So
    it costs about one pass over the weights, a small part of what their whole spectra cost (`WeightProbe`). The
    operator is "reshape". Sharded weights (DTensor) are never gathered.

    "sigma_max" is a lower bound of the largest singular value, within `tolerance` of it where the weights have not
    jumped; "sigma_2", ... those after it; "stable_rank" is that of the whole matrix, 0 for a matrix of zeros. A weight
    that is not finite has none of these, and "nonfinite" says how many of its entries are to blame.

    The probe keeps the vectors, outside the model: use one for one model.

    Args:
        layers: Glob, several globs, regular expression or predicate (see `select_layers`); of what matches, layers
            with a weight of two dimensions or more are taken, and adapted ones (LoRA) instead of their parts.
        count: How many values of each.
        tolerance: More products are spent on a layer whose residual is above this; 0.02 keeps a value within 1%.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(2, 2, bias=False))
        >>> _ = model[0].weight.data.copy_(torch.diag(torch.tensor([3.0, 4.0])))
        >>> TrackedWeightProbe()(model)
        {'0': {'sigma_max': 4.0, 'stable_rank': 1.5625}}
    """

    layers: Layers = "*"
    count: int = 1
    tolerance: float | None = 0.02
    only: Collection[str] | None = None
    """Names to measure now, of those that match; None for all."""
    followed: _Followed = field(default_factory=_Followed, repr=False, compare=False)
    prefix: ClassVar[str] = "weights"

    def select(self, model: nn.Module) -> dict[str, nn.Module]:
        """The layers that would be followed, by name.

        Raises:
            ValueError: If there are none among those that match.
        """
        matching = select_layers(model, self.layers)
        adapted = tuple(f"{name}." for name, module in matching.items() if is_adapted(module))
        selected = {
            name: module
            for name, module in matching.items()
            if _has_matrix(module) and not (adapted and name.startswith(adapted))
        }
        if not selected:
            raise ValueError(
                f"none of the {len(matching)} layers that match {self.layers!r} has a weight of two dimensions or more"
            )
        return selected

    def narrow(self, names: Collection[str]) -> "TrackedWeightProbe":
        """The same probe, with the same vectors, for some of its layers."""
        return replace(self, only=frozenset(names))

    def __call__(self, model: nn.Module) -> dict[str, dict[str, float]]:
        """Measure now.

        Args:
            model: Plain, compiled or wrapped; the same at each call.

        Returns:
            Values of each layer by name.

        Raises:
            ValueError: If no layer matches.
        """
        selected = self.select(model)
        tracker = self._tracker(selected)
        names = [name for name in selected if self.only is None or name in self.only]
        for name in names:
            weight = self.followed.weights[name]
            if isinstance(weight, _Live):
                weight.refresh()
        spectra = tracker.update(names, tolerance=self.tolerance)
        return {name: self._values(name, tracker, spectra.get(name)) for name in names}

    def state_dict(self) -> dict[str, Tensor]:
        """The vectors, for a checkpoint of their own."""
        return dict(self.followed.waiting) if self.followed.tracker is None else self.followed.tracker.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take the vectors up; layers that are not in the state are measured anew."""
        self.followed.tracker, self.followed.waiting = None, dict(state)

    def _tracker(self, selected: Mapping[str, nn.Module]) -> Tracker:
        """The tracker of all layers; made anew, with the old one's vectors, when a weight is another object."""
        followed = self.followed
        known = followed.weights
        same = followed.tracker is not None and known.keys() == selected.keys()
        if same and all(isinstance(known[n], _Live) or known[n] is m.weight for n, m in selected.items()):
            assert followed.tracker is not None
            return followed.tracker
        state = self.state_dict()
        followed.weights = {name: _weight(module) for name, module in selected.items()}
        followed.tracker = Tracker(followed.weights, count=self.count)
        try:
            followed.tracker.load_state_dict(_of(followed.weights, state)) if state else None
        except ValueError:  # other shapes: nothing to go on from
            followed.tracker = Tracker(followed.weights, count=self.count)
        return followed.tracker

    def _values(self, name: str, tracker: Tracker, spectrum: Spectrum | None) -> dict[str, float]:
        if spectrum is None:
            return {"nonfinite": float(tracker.broken.get(name, 1))}
        first, *rest = spectrum.values.tolist()
        weight = self.followed.weights[name]
        norm = frobenius(weight.now) if isinstance(weight, _Live) else tracker.frobenius[name]
        values = {"sigma_max": first, "stable_rank": (norm / first) ** 2 if first > 0 else 0.0}
        return values | {f"sigma_{number}": value for number, value in enumerate(rest, 2)}


def _of(weights: Mapping[str, object], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The part of a state that is of these weights."""
    return {key: value for key, value in state.items() if "." not in key or key.split(".", 1)[1] in weights}


def _weight(module: Any) -> Tensor | _Live:
    """The weight itself where it is stored as it is used."""
    computed = is_parametrized(module, "weight") or is_adapted(module) or getattr(module, "groups", 1) != 1
    return _Live(module) if computed else module.weight


def _has_matrix(module: nn.Module) -> bool:
    if is_parametrized(module, "weight") or is_adapted(module):
        return True
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim < 2 or not weight.numel():
        return False
    return weight.is_floating_point() and not weight.is_meta
