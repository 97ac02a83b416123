"""Spectral normalisation: hold the largest singular value of chosen layers at or under a bound."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal, get_args
from weakref import WeakKeyDictionary

from torch import nn

from lsdr.layers.operators import Size
from lsdr.layers.select import Layers, select_layers
from lsdr.probes.weights import WEIGHTED
from lsdr.regularizers._adapter_factors import adapted_layers
from lsdr.regularizers._adapter_normalization_term import AdapterNormalizationTerm
from lsdr.regularizers._normalization_term import NormalizationTerm
from lsdr.regularizers._residual_bounds import Form, residual_bounds

Operator = Literal["reshape", "zero_padded"]
Gain = Literal["fixed", "learnable"]

# What is attached where. A regularizer is a plain frozen value; what it remembers of a model is here.
_ATTACHED: WeakKeyDictionary[nn.Module, list[tuple["SpectralNormalization", NormalizationTerm]]] = WeakKeyDictionary()


@dataclass(frozen=True)
class SpectralNormalization:
    r"""Hold the spectral norm of chosen layers, exactly, after every step of the optimiser.

    .. math:: W \leftarrow W \cdot \min\Bigl(1, \frac{b}{\sigma(W)}\Bigr) \text{ (soft)}, \qquad
        W \leftarrow W \cdot \frac{b}{\sigma(W)} \text{ (not soft)}

    It is a projection of the weights themselves, called after the optimiser's step (`Penalty.project_`) and once when
    attached, and not a reparametrization: forward and backward passes, compiled graphs, `train` and `eval` know
    nothing of it, and a checkpoint is that of the plain model. The norm is measured anew each time, to `tolerance`,
    where a power iteration of one step per forward (`torch.nn.utils.parametrizations.spectral_norm`) lags behind the
    weights. Layers of zeros stay zeros; layers that are not finite are left alone, for the training loop to notice.
    Within the tolerance nothing is touched, so projecting twice is projecting once. Layers that have not changed since
    the last projection are not measured again: where two networks train in turns, each pays for its own.

    The weights with norm at most b are a convex set: an average of weights over training is in it if all of them
    are (soft).

    **operator** (see `layer_operator`)

    - `"reshape"`: the kernel as a matrix; the largest over groups. From its Gram matrix, exact to 1e-5 or, for
      a tolerance below 5e-4, to rounding in float64: m^2 n + m^3 operations for a matrix of m x n, m <= n, a small part
      of a step over many positions. For a linear layer it is
      the layer; the norm of a convolution is up to sqrt(kernel size) larger.
    - `"zero_padded"`: the convolution itself, at the given image size, by Krylov spaces that start where the last ones
      ended: an estimate, not a certificate; 40 to 200 convolutions of one image per layer and step, the more the
      faster the weights move. The norm grows with the image, so that of a larger size holds for all smaller ones.

    **gain**

    - `"fixed"`: b is the bound.
    - `"learnable"` (not soft): every layer has a learned norm g, between 0 and the bound, and is scaled to it: the
      initial norm, at first. The gains are parameters of the attached term, `term.parameters()`; give them to the
      optimiser, in a group of their own where weights are sharded. W carries g: checkpoints and averages need no more.

    Weights in half precision are scaled until the rounded weights keep the bound. Sharded weights (DTensor, FSDP2) are
    gathered one layer at a time, and scaled in place.

    **adapters**: in a model with adapted layers (LoRA, LoHa, LoKr by peft) the base is not what is trained, and scaling
    it would leave an adapter for a base that nobody else has. There W is the change that the adapter adds to such a
    layer, as `AdapterNormalization` holds it, to 1e-6 (soft, with a fixed gain, as a matrix); other layers are held by
    their own weights if these are trained, and frozen ones are left alone.

    Source: Miyato et al. 2018 (arXiv:1802.05957), eq. 8, for the quotient, there with one power iteration and a
    gradient through sigma; Gouk et al. 2018 (arXiv:1804.04368), algorithm 2, for the projection; soft as in Behrmann et
    al. 2019 (arXiv:1811.00995), eq. 8.

    Args:
        layers: Which layers (see `select_layers`), of those of `types`.
        bound: b, positive; or one for each layer by name.
        operator: See above.
        soft: Leave layers under the bound as they are.
        gain: See above.
        size: Image size at the layers' inputs, for `"zero_padded"`: the largest of them, or one for each by name.
        tolerance: How far above the bound the norm may be, relatively; and below it, if not soft and in float32.
        types: Classes of layers; each must have a plain `weight` of two dimensions or more.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> import torch
        >>> from lsdr.regularizers.attach import attach
        >>> model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
        >>> optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        >>> with attach(model, SpectralNormalization(bound=0.5)) as penalty:
        ...     (model(torch.randn(4, 3)).square().mean() + penalty()).backward()
        ...     optimizer.step()
        ...     penalty.project_()
        >>> float(torch.linalg.matrix_norm(model[0].weight.detach(), 2)) <= 0.5 * 1.001
        True
    """

    layers: Layers = "*"
    bound: float | int | Mapping[str, float | int] = 1.0
    operator: Operator = "reshape"
    soft: bool = True
    gain: Gain = "fixed"
    size: Size | Mapping[str, Size] | None = None
    tolerance: float = 1e-3
    types: tuple[type[nn.Module], ...] = WEIGHTED

    def __post_init__(self) -> None:
        for name, value, choices in (("operator", self.operator, Operator), ("gain", self.gain, Gain)):
            if value not in get_args(choices):
                raise ValueError(f"{name} must be one of {', '.join(map(repr, get_args(choices)))}, got {value!r}")
        bounds = self.bound.values() if isinstance(self.bound, Mapping) else [self.bound]
        if not all(math.isfinite(bound) and bound > 0 for bound in bounds):
            raise ValueError(f"bound must be finite and positive, got {self.bound}")
        if not 1e-6 <= self.tolerance < 1:
            raise ValueError(f"tolerance must be at least 1e-6, about the rounding of float32, got {self.tolerance}")
        if self.gain == "learnable" and self.soft:
            raise ValueError("gain='learnable' learns the norm that a layer is held at: it needs soft=False")
        if self.operator == "zero_padded" and self.size is None:
            raise ValueError("operator='zero_padded' needs the image size at the layers' inputs, such as size=32")
        if self.operator == "zero_padded" and self.tolerance < 1e-5:
            raise ValueError(f"operator='zero_padded' is measured to 1e-5 at best, got tolerance {self.tolerance}")

    @classmethod
    def residual(
        cls,
        model: nn.Module,
        branches: Layers,
        bound: float | int,
        form: Form = "sum",
        size: Size | None = None,
        tolerance: float = 1e-3,
    ) -> "SpectralNormalization":
        r"""The normalisation that bounds whole residual blocks, given their branches.

        A branch f of L weighted layers, with everything else in it (activations, pooling, norms in evaluation mode) of
        Lipschitz constant K at most, is bounded by c if each layer is bounded by :math:`(c / K)^{1/L}`. Which c the
        block's bound B asks for depends on its form:

        - `"sum"`: x + f(x), c = B - 1. For B < 2 the block can be inverted, and expands no less than 2 - B.
        - `"convex"`: (1 - a) x + a f(x) with a in [0, 1], c = B, at least 1.
        - `"lipschitz"`: f(x) alone, c = B.

        Norms of convolutions are those of `operator="zero_padded"` where `size` is given; otherwise a layer's bound is
        divided by the root of the most patches that a pixel is in, as the flattened kernel's norm has to be.

        Source: Behrmann et al. 2019 (arXiv:1811.00995), theorem 1 and lemma 2 for the sum.

        Args:
            model: The model to attach to later; in evaluation mode here, if it has batch norms or dropout. K is taken
                as it is now, so what is trained of it (a norm's weight) is not bounded by this.
            branches: Which submodules are branches (see `select_layers`), each one a chain that `lipschitz_bound`
                can follow.
            bound: B, for every block.
            form: See above.
            size: Image size at the inputs of the branches' layers, the largest of them.
            tolerance: How far above its bound the norm of a layer may be, relatively: it is taken off here.

        Raises:
            ValueError: If the bound is out of range for the form, or a branch cannot be followed.

        Example:
            >>> model = nn.ModuleDict({"branch": nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))})
            >>> SpectralNormalization.residual(model, "branch", bound=1.25, tolerance=1e-6).bound
            {'branch.0': 0.5, 'branch.2': 0.5}
        """
        bounds = residual_bounds(model, select_layers(model, branches), float(bound), form, size, tolerance)
        operator: Operator = "reshape" if size is None else "zero_padded"
        return cls(tuple(bounds), bounds, operator, size=size, tolerance=tolerance)

    @contextmanager
    def attach(self, model: nn.Module) -> Iterator[NormalizationTerm]:
        """Hold the layers until the context is left; see `lsdr.attach`.

        Raises:
            ValueError: If no layer matches, or one has no plain weight to scale.
        """
        term = self._term(model)
        attached = _ATTACHED.setdefault(model, [])
        attached.append((self, term))
        try:
            with term.gains.following() if term.gains is not None else nullcontext():
                yield term
        finally:
            attached[:] = [each for each in attached if each[1] is not term]

    def project_(self, model: nn.Module) -> None:
        """Scale the layers of `model`, in place; from a cold start where this is not attached to it.

        Raises:
            RuntimeError: If gains are to be learned and the optimiser does not hold them.
        """
        terms = [term for regularizer, term in _ATTACHED.get(model, []) if regularizer is self]
        if not terms:
            self._term(model)
        for term in terms:
            term.project_()

    def _term(self, model: nn.Module) -> NormalizationTerm:
        adapted = adapted_layers(model, lambda name, module: True)
        if adapted:
            return self._with_adapters(model, adapted)
        selected = select_layers(model, self.layers, self.types)
        size = self.size if self.operator == "zero_padded" else None
        learnable = self.gain == "learnable"
        return NormalizationTerm(selected, self._bounds(selected), size, self.soft, learnable, self.tolerance)

    def _with_adapters(self, model: nn.Module, adapted: dict[str, nn.Module]) -> NormalizationTerm:
        """The changes of adapted layers are held, and the weights of others that are trained."""
        matching = select_layers(model, self.layers)
        plain = {name: each for name, each in matching.items() if isinstance(each, self.types) and name not in adapted}
        for name in list(plain):
            outer = next((each for each in adapted if name.startswith(f"{each}.")), None)
            if outer is not None and outer not in matching:
                raise ValueError(f"layer {name!r} is a part of the adapted layer {outer!r}: name that one instead")
            if outer is not None or not _is_trained(plain[name]):
                del plain[name]
        held = {name: each for name, each in adapted.items() if name in matching and _has_base(each, self.types)}
        if not held and not plain:
            raise ValueError(
                f"of the layers that match {self.layers!r} none of the chosen types is adapted or trained, and in a "
                "model with adapters frozen weights are left as they are: name other layers"
            )
        if held and (not self.soft or self.operator != "reshape"):
            raise ValueError(
                f"layer {next(iter(held))!r} is adapted (LoRA or the like): what the adapter adds can be held at or "
                f'under a bound as a matrix, which is soft=True, gain="fixed", operator="reshape"; got '
                f"soft={self.soft}, gain={self.gain!r}, operator={self.operator!r}. Change these, or leave adapted "
                "layers out"
            )
        adapters = AdapterNormalizationTerm(held, self._bounds(held), "spectral", relative=False) if held else None
        size = self.size if self.operator == "zero_padded" else None
        learnable = self.gain == "learnable"
        return NormalizationTerm(plain, self._bounds(plain), size, self.soft, learnable, self.tolerance, adapters)

    def _bounds(self, selected: Mapping[str, nn.Module]) -> dict[str, float]:
        if not isinstance(self.bound, Mapping):
            return dict.fromkeys(selected, float(self.bound))
        missing = [name for name in selected if name not in self.bound]
        if missing:
            raise ValueError(f"bound has no entry for the layers {missing}; it has {list(self.bound)}")
        return {name: float(self.bound[name]) for name in selected}


def _is_trained(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return weight is None or bool(weight.requires_grad)


def _has_base(module: nn.Module, types: tuple[type[nn.Module], ...]) -> bool:
    """Whether what is adapted is of these types."""
    while isinstance(inner := getattr(module, "base_layer", None), nn.Module):
        module = inner
    return isinstance(module, types)
