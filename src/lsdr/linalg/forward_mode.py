"""Forward-mode differentiation through networks whose operations torch cannot take it through as they stand."""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode


@contextmanager
def forward_mode() -> Iterator[None]:
    """Open a level of forward-mode differentiation that networks with norms and attention get through, training too.

    Some operations are called in another form of the same function, for what torch 2.13 does with them: group norm's
    tangent is a view that only a contiguous input allows; fused attention has none; and where a loss of the tangent is
    trained, the gradient through that of layer and instance norm is wrong without a word (their mean and deviation
    count as constants), and through that of softmax it fails. Batch norm in training mode, wrong in the same way, is
    refused with a RuntimeError where gradients are on.

    Example:
        >>> norm, x = torch.nn.GroupNorm(1, 2), torch.randn(1, 2, 3, 3).mT
        >>> with forward_mode():
        ...     y = norm(forward_ad.make_dual(x, torch.ones_like(x)))
        ...     tangent = forward_ad.unpack_dual(y).tangent  # a constant added to all changes nothing
        >>> bool(tangent.abs().max() < 1e-5)
        True
    """
    _load()
    with _Rewritten(), sdpa_kernel(SDPBackend.MATH), forward_ad.dual_level():
        yield


@cache
def _load() -> None:
    """Torch compiles its formulas at the first use, with a warning about its own code that is no failure of ours."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.simplefilter("ignore", DeprecationWarning)
        forward_ad.make_dual(torch.zeros(1), torch.zeros(1))


class _Rewritten(TorchFunctionMode):
    def __torch_function__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), keywords: dict[str, Any] | None = None
    ) -> Any:
        return _FORMS.get(function, function)(*arguments, **(keywords or {}))


def _group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    return F.group_norm(input.contiguous(), num_groups, weight, bias, eps)


def _layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor:
    normal = _normal(input, tuple(range(-len(normalized_shape), 0)), eps)
    normal = normal if weight is None else normal * weight
    return normal if bias is None else normal + bias


def _instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if running_mean is not None or running_var is not None:
        return F.instance_norm(input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)
    shape = (-1, *[1] * (input.ndim - 2))
    normal = _normal(input, tuple(range(2, input.ndim)), eps)
    normal = normal if weight is None else normal * weight.view(shape)
    return normal if bias is None else normal + bias.view(shape)


def _batch_norm(input: Tensor, *rest: Any, **named: Any) -> Tensor:
    if torch.is_grad_enabled() and (rest[4] if len(rest) > 4 else named.get("training", False)):
        raise RuntimeError("the gradient through the tangent of batch norm in training mode is wrong in torch")
    return F.batch_norm(input, *rest, **named)


def _normal(x: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    """Mean 0 and variance 1 over some axes, computed in float32 or better."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    centred = wide - wide.mean(dims, keepdim=True)
    normal = centred * (centred.square().mean(dims, keepdim=True) + eps).rsqrt()
    return normal.to(_answer(x))


def _softmax(input: Tensor, dim: int, *_: Any, dtype: torch.dtype | None = None, **__: Any) -> Tensor:
    x = input if dtype is None else input.to(dtype)
    logits = x.to(torch.promote_types(x.dtype, torch.float32))
    weights = (logits - logits.detach().amax(dim, keepdim=True)).exp()
    weights = weights / weights.sum(dim, keepdim=True)
    return weights.to(_answer(x))


def _answer(x: Tensor) -> torch.dtype:
    """In which type norms and softmax answer: autocast of CUDA, unlike that of CPUs, has them answer in float32."""
    wide = x.is_cuda and torch.is_autocast_enabled("cuda")
    return torch.promote_types(x.dtype, torch.float32) if wide else x.dtype


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Softmax attention in elementary operations, in float32 or better; a query that sees no key answers 0."""
    if is_causal and attn_mask is not None:
        raise ValueError("attention takes attn_mask or is_causal, not both")
    if enable_gqa:
        key, value = (each.repeat_interleave(query.shape[-3] // each.shape[-3], -3) for each in (key, value))
    logits = (query @ key.mT * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)).to(
        torch.promote_types(query.dtype, torch.float32)
    )
    if is_causal:
        attn_mask = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).tril()
    if attn_mask is not None:
        logits = logits.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else logits + attn_mask
    largest = logits.detach().amax(-1, keepdim=True)
    weights = (logits - torch.where(largest == -math.inf, 0, largest)).exp()
    total = weights.sum(-1, keepdim=True)
    weights = (weights / torch.where(total == 0, 1, total)).to(value.dtype)
    return F.dropout(weights, dropout_p) @ value if dropout_p else weights @ value


_FORMS: dict[Any, Callable[..., Tensor]] = {
    F.group_norm: _group_norm,
    F.layer_norm: _layer_norm,
    torch.layer_norm: _layer_norm,
    F.instance_norm: _instance_norm,
    F.batch_norm: _batch_norm,
    F.softmax: _softmax,
    torch.softmax: _softmax,
    Tensor.softmax: _softmax,
    F.scaled_dot_product_attention: _attention,
}
