"""Forward-mode differentiation through networks whose operations torch cannot take it through as they stand."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode


@contextmanager
def forward_mode() -> Iterator[None]:
    """Open a level of forward-mode differentiation in which group norms and attention have their derivative.

    Both are called in another form of the same function: torch 2.13 gives group norm's tangent a view that only a
    contiguous input allows, has no forward derivative for fused attention, and none that can be trained through for the
    softmax of the unfused one.

    Example:
        >>> norm, x = torch.nn.GroupNorm(1, 2), torch.randn(1, 2, 3, 3).mT
        >>> with forward_mode():
        ...     y = norm(forward_ad.make_dual(x, torch.ones_like(x)))
        ...     tangent = forward_ad.unpack_dual(y).tangent  # a constant added to all changes nothing
        >>> float(tangent.abs().max()) < 1e-5
        True
    """
    with _Rewritten(), sdpa_kernel(SDPBackend.MATH), forward_ad.dual_level():
        yield


class _Rewritten(TorchFunctionMode):
    def __torch_function__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), keywords: dict[str, Any] | None = None
    ) -> Any:
        keywords = keywords or {}
        if function is F.group_norm:
            return function(arguments[0].contiguous(), *arguments[1:], **keywords)
        if function is F.scaled_dot_product_attention and not keywords.get("enable_gqa", False):
            return _attention(*arguments, **keywords)
        return function(*arguments, **keywords)


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
    logits = query @ key.mT * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).tril()
    if attn_mask is not None:
        logits = logits.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else logits + attn_mask
    weights = (logits - logits.detach().amax(-1, keepdim=True)).exp()
    weights = weights / weights.sum(-1, keepdim=True)
    return F.dropout(weights, dropout_p) @ value if dropout_p else weights @ value
