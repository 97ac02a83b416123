"""Learned norms of layers: parameters that are in no layer and in no state dict of the model."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook


class Gains:
    r"""One learned norm per layer, :math:`W = g\, V / \sigma(V)`, with W the layer's own weight.

    The loss does not see g, it sees W. What the parametrization would give as the gradient of g follows from W's:

    .. math:: \frac{\partial L}{\partial g} = \Bigl\langle \frac{\partial L}{\partial W}, \frac{W}{g} \Bigr\rangle

    It is set just before an optimiser that holds the gains takes its step, from gradients that are averaged over
    ranks, unscaled and clipped by then. What the optimiser does to the norm of W itself the projection undoes.

    Args:
        layers: Layers by name, each with a weight.
        initial: Their norms.
    """

    def __init__(self, layers: Mapping[str, nn.Module], initial: Mapping[str, float]):
        self._layers = dict(layers)
        self.parameters = {
            name: nn.Parameter(torch.tensor(initial[name], device=weight.device))
            for name, weight in self._weights().items()
        }
        self._optimized = self._stepped = False

    @contextmanager
    def following(self) -> Iterator[None]:
        """Give the gains their gradients before every optimiser's step, while the context lasts."""
        handle = register_optimizer_step_pre_hook(self._before_step)
        try:
            yield
        finally:
            handle.remove()

    def _weights(self) -> dict[str, Tensor]:
        return {name: module.get_parameter("weight") for name, module in self._layers.items()}

    def check_optimized(self) -> None:
        """Make sure that an optimiser learns them.

        Raises:
            RuntimeError: If one moved the layers and none the gains.
        """
        if self._stepped and not self._optimized:
            raise RuntimeError(
                "gain='learnable', but the optimiser that moved the weights does not hold the gains: give them "
                "to it with optimizer.add_param_group({'params': term.parameters()}), the term being what "
                "SpectralNormalization(...).attach(model) yields"
            )

    def _before_step(self, optimizer: Optimizer, arguments: Any, keywords: Any) -> None:
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        weights = self._weights()
        self._stepped |= any(id(weight) in held for weight in weights.values())
        for name, gain in self.parameters.items():
            if id(gain) not in held:
                continue
            self._optimized = True
            weight = weights[name]
            if weight.grad is None:
                gain.grad = None
                continue
            with torch.no_grad():
                product: Tensor = (weight.grad.float() * weight.float()).sum()
                if hasattr(product, "full_tensor"):
                    product = product.full_tensor()
                # A layer of zeros has no direction yet, and so no gradient of its norm.
                gain.grad = torch.where(gain > 0, product / gain, 0).to(gain.dtype)
