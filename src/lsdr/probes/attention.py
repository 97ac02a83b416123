"""Sizes of attention logits, and how spread out attention is."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lsdr.layers.capture import capture, capture_calls
from lsdr.layers.heads import attention_heads
from lsdr.layers.select import Layers, select_layers
from lsdr.probes.nothing import LayersNotMeasuredError, NothingMeasuredError

# Children of an attention layer that put out its queries and keys, and those that normalise them.
_PROJECTIONS = (
    ("to_q", "to_k"), ("q_proj", "k_proj"), ("query", "key"), ("q_lin", "k_lin"), ("query_proj", "key_proj"),
    ("wq", "wk"), ("q", "k"),
)  # fmt: skip
# Of joint attention (SD3, Flux) those of the text, which is attended to and attends together with the image.
_ADDED = (("norm_added_q", "norm_added_k"), ("add_q_proj", "add_k_proj"))
_NORMS = (("norm_q", "norm_k"), ("q_norm", "k_norm"), ("q_layernorm", "k_layernorm"), ("query_norm", "key_norm"))
# Those that put out queries, keys and values one after the other, in thirds.
_FUSED = ("to_qkv", "qkv", "c_attn", "Wqkv")
_HEADS = ("heads", "num_heads", "num_attention_heads", "n_heads", "n_head")
# Queries, examples and logits that are looked at in one forward of one layer, whatever the batch and the image size.
_QUERIES, _EXAMPLES, _LOGITS = 64, 4, 1 << 22


@dataclass(frozen=True)
class AttentionProbe:
    r"""Logits and entropy of attention layers, on a bounded sample of queries; measuring changes nothing.

    .. math:: \ell_{ij} = s\, q_i \cdot k_j, \quad p_{ij} = \mathrm{softmax}_j(\ell_{ij}), \quad
        H_i = -\textstyle\sum_j p_{ij} \log p_{ij}

    "logit_max" is the largest logit, "logit_rms" their root mean square, "entropy" the mean of H over queries and
    heads in nats (at most the logarithm of the number of keys), "entropy_min" that of the head with the least:
    attention collapses head by head. Logits that grow and entropy that falls precede divergence (Zhai et al., 2023,
    arXiv:2303.06296; Dehghani et al., 2023, arXiv:2302.05442).

    Attention computes its scores inside one kernel, so they are computed here, in float32, from the queries and keys
    that the layer's projections (or their norms, where it has some) put out: for at most 64 queries, evenly spaced, of
    at most 4 examples, against all keys. Causal masks are respected, and masks given to `nn.MultiheadAttention`;
    padding masks of other layers and rotary embeddings are not seen: with these the logits are those at distance zero.

    Understood are `nn.MultiheadAttention`, attention layers of diffusers and transformers with one projection for
    queries and one for keys, those that put out queries, keys and values one after the other, and joint attention of
    two streams (image and text of SD3 and Flux), whose queries and keys are taken together. Adapters (LoRA) on the
    projections are in what these put out.

    Args:
        layers: Glob, several globs, regular expression or predicate (see `select_layers`); of what matches, the
            attention layers are taken.

    Example:
        >>> model = nn.ModuleDict({"attn": nn.MultiheadAttention(4, 2)})
        >>> with AttentionProbe().attach(model) as attention:
        ...     _ = model["attn"](*[torch.zeros(3, 1, 4)] * 3)
        >>> attention()["attn"]["entropy"]  # three keys, none preferred: log 3
        tensor(1.0986)
    """

    layers: Layers = "*"
    prefix: ClassVar[str] = "attention"

    def select(self, model: nn.Module) -> dict[str, nn.Module]:
        """The attention layers that would be watched, by name.

        Raises:
            ValueError: If there are none among those that match.
        """
        matching = select_layers(model, self.layers)
        selected = {name: module for name, module in matching.items() if _parts(module) is not None}
        if not selected:
            raise ValueError(f"none of the {len(matching)} layers that match {self.layers!r} is an attention layer")
        return selected

    @contextmanager
    def attach(self, model: nn.Module) -> Iterator[Callable[[], dict[str, dict[str, Tensor]]]]:
        """Watch the attention layers until the context is left.

        Args:
            model: Plain, compiled or wrapped.

        Yields:
            A function that returns, during the context or after it, the values so far of the layers that ran; it
            raises NothingMeasuredError if none did.

        Raises:
            ValueError: If no attention layer matches.
        """
        selected = self.select(model)
        watches = {name: _Watch(module) for name, module in selected.items()}
        children = {
            f"{name}\n{role}": child
            for name, module in selected.items()
            for role, child in (_parts(module) or {}).items()
        }
        whole = {name: module for name, module in selected.items() if isinstance(module, nn.MultiheadAttention)}

        failed: dict[str, str] = {}

        def receive(path: str, module: nn.Module, output: Tensor) -> None:
            name, role = path.split("\n")
            with _noting(failed, name):
                watches[name].take(role, output)

        def receive_call(name: str, module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            with _noting(failed, name):
                watches[name].take_call(arguments, keywords)

        with ExitStack() as stack:
            if children:
                stack.enter_context(capture(model, children, receive))
            stack.enter_context(capture_calls(whole, receive_call))

            def attention() -> dict[str, dict[str, Tensor]]:
                ran = {name: watch.values() for name, watch in watches.items() if watch.count and name not in failed}
                if failed:
                    raise LayersNotMeasuredError(failed, ran)
                if not ran:
                    raise NothingMeasuredError(
                        f"none of the {len(selected)} selected attention layers ran: run the model inside the context, "
                        "and with torch.compile enter it before the first compiled call"
                    )
                return ran

            yield attention


@contextmanager
def _noting(failed: dict[str, str], name: str) -> Iterator[None]:
    """Whatever shape an unknown layer's queries have, the forward pass goes on."""
    try:
        yield
    except (RuntimeError, ValueError, IndexError) as error:
        failed[name] = f"is an attention layer whose queries and keys are not as expected: {error}"


class _Watch:
    """Sums over the forwards of one attention layer."""

    def __init__(self, module: nn.Module):
        self.module = module
        self.count = 0
        self._entropy: Tensor | None = None
        self._largest: Tensor | None = None
        self._squares: Tensor | None = None
        self._waiting: dict[str, Tensor] = {}
        self._roles = (_parts(module) or {}).keys()

    def take(self, role: str, output: Tensor) -> None:
        """Queries, keys or both arrived from a projection or its norm."""
        with torch.no_grad():
            if role == "fused":
                heads = _head_count(self.module)
                query, key, _ = output.detach().chunk(3, -1)
                self._add(_heads(query, heads), _heads(key, query.shape[-1] // heads, width=True))
                return
            self._waiting[role] = output.detach()
            if self._waiting.keys() == self._roles:
                waiting, self._waiting = self._waiting, {}
                query, key = self._divided(waiting["query"], waiting["key"])
                if "added_query" in waiting:
                    added = self._divided(waiting["added_query"], waiting["added_key"])
                    query, key = torch.cat([query, added[0]], 1), torch.cat([key, added[1]], 1)
                self._add(query, key)

    def _divided(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys of shape (batch, tokens, heads, width)."""
        heads = _head_count(self.module)
        if query.ndim < 4:
            return _heads(query, heads), _heads(key, query.shape[-1] // heads, width=True)
        # After a norm of each head, which may come before or after the tokens.
        kind = type(self.module)
        first = query.shape[1] == heads and kind.__module__.startswith("diffusers")
        if query.shape[1] == query.shape[2] == heads:  # of diffusers' layers only `Attention` has heads first
            first = first and kind.__name__ == "Attention"
        if first or query.shape[2] != heads:
            return query.transpose(1, 2), key.transpose(1, 2)
        return query, key

    def take_call(self, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> None:
        """`nn.MultiheadAttention` was called: project its inputs as it does."""
        module: Any = self.module
        named = dict(
            zip(("query", "key", "value", "key_padding_mask", "need_weights", "attn_mask"), arguments, strict=False)
        )
        named |= keywords
        with torch.no_grad(), torch.autocast(named["query"].device.type, enabled=False):
            query, key = named["query"].detach(), named["key"].detach()
            if query.ndim == 2:
                query, key = query[None], key[None]
            elif not module.batch_first:
                query, key = query.transpose(0, 1), key.transpose(0, 1)
            examples = _spread(len(query), _EXAMPLES, query.device)
            if module.in_proj_weight is not None:
                weights = module.in_proj_weight.detach().chunk(3)[:2]
            else:
                weights = (module.q_proj_weight.detach(), module.k_proj_weight.detach())
            biases = (None, None) if module.in_proj_bias is None else module.in_proj_bias.detach().chunk(3)[:2]
            query, key = (
                nn.functional.linear(x[examples].float(), weight.float(), None if bias is None else bias.float())
                for x, weight, bias in zip((query, key), weights, biases, strict=True)
            )
            mask = named.get("attn_mask")
            padding = named.get("key_padding_mask")
            self._add(
                _heads(query, module.num_heads),
                _heads(key, module.num_heads),
                mask if isinstance(mask, Tensor) and mask.ndim == 2 else None,
                padding[examples] if isinstance(padding, Tensor) and padding.ndim == 2 else None,
            )

    def _add(self, query: Tensor, key: Tensor, mask: Tensor | None = None, padding: Tensor | None = None) -> None:
        """Add the logits of a sample of queries, each of shape (batch, tokens, heads, width)."""
        device = query.device
        with torch.autocast(device.type, enabled=False):
            if len(query) > _EXAMPLES:
                examples = _spread(len(query), _EXAMPLES, device)
                query, key = query[examples], key[examples]
            b, t, heads, width = query.shape
            s, kv_heads = key.shape[1], key.shape[2]
            rows = _spread(t, max(1, min(_QUERIES, _LOGITS // max(b * heads * s, 1))), device)
            # Each head of keys serves heads / kv_heads heads of queries that follow one another.
            q = query[:, rows].float().transpose(1, 2).unflatten(1, (kv_heads, heads // kv_heads))
            k = key.float().transpose(1, 2).unsqueeze(2)
            logits = (_scale(self.module, width) * q @ k.mT).flatten(1, 2)
            hidden = _hidden(self.module, rows, t, s, mask, padding)
            if hidden is not None:
                logits = logits.masked_fill(hidden, -math.inf)
            probabilities = logits.softmax(-1)
            entropy = -torch.special.xlogy(probabilities, probabilities).sum(-1)  # (b, heads, rows)
            seen = logits > -math.inf
            largest = logits.amax()
            squares = torch.where(seen, logits, 0).square().sum() / seen.sum().clamp_min(1)
            totals = entropy.mean(0).mean(-1)
        self.count += 1
        self._entropy = totals if self._entropy is None else self._entropy + totals
        self._squares = squares if self._squares is None else self._squares + squares
        self._largest = largest if self._largest is None else torch.maximum(self._largest, largest)

    def values(self) -> dict[str, Tensor]:
        """What the forwards so far come to."""
        assert self._entropy is not None
        assert self._largest is not None
        assert self._squares is not None
        entropy = self._entropy / self.count
        return {
            "logit_max": self._largest,
            "logit_rms": (self._squares / self.count).sqrt(),
            "entropy": entropy.mean(),
            "entropy_min": entropy.min(),
        }


def _parts(module: nn.Module) -> dict[str, nn.Module] | None:
    """Children that put out queries and keys, by role; none of `nn.MultiheadAttention`; None if it is no attention."""
    if isinstance(module, nn.MultiheadAttention):
        return {}
    parts = _children(module)
    return None if parts is None or _count_or_none(module) is None else parts


def _children(module: nn.Module) -> dict[str, nn.Module] | None:
    # Norms see what the projections put out, and what they put out is what attention takes.
    norms = _pair(module, _NORMS)
    if norms is not None:
        return norms | _added(module)
    for leaf in _FUSED:
        child = getattr(module, leaf, None)
        if isinstance(child, nn.Module) and not getattr(module, "is_cross_attention", False):
            return {"fused": child}
    found = _pair(module, _PROJECTIONS)
    return None if found is None else found | _added(module)


def _added(module: nn.Module) -> dict[str, nn.Module]:
    """What puts out the second stream's queries and keys; empty if there is none that queries."""
    return {f"added_{role}": child for role, child in (_pair(module, _ADDED) or {}).items()}


def _pair(module: nn.Module, names: tuple[tuple[str, str], ...]) -> dict[str, nn.Module] | None:
    for query, key in names:
        pair: Any = getattr(module, query, None), getattr(module, key, None)
        if all(isinstance(child, nn.Module) and not isinstance(child, nn.Identity) for child in pair):
            return {"query": pair[0], "key": pair[1]}
    return None


def _count_or_none(module: nn.Module) -> int | None:
    count = next((value for name in _HEADS if isinstance(value := getattr(module, name, None), int)), None)
    if count is None:
        config: Any = getattr(module, "config", None)
        settings = config.to_dict() if hasattr(config, "to_dict") else config if isinstance(config, Mapping) else None
        known = attention_heads(settings)
        count = None if known is None else known.heads
    return count


def _head_count(module: nn.Module) -> int:
    count = _count_or_none(module)
    assert count is not None
    return count


def _heads(x: Tensor, count: int, *, width: bool = False) -> Float[Tensor, "b t h d"]:
    """Divide the last dimension into `count` heads, or into heads of that width."""
    divided: Tensor = x.unflatten(-1, (-1, count) if width else (count, -1))
    return divided


def _spread(length: int, count: int, device: torch.device) -> Tensor:
    """At most `count` positions, evenly spaced over all of them."""
    count = min(count, length)
    return torch.arange(count, device=device) * length // max(count, 1)


def _scale(module: nn.Module, width: int) -> float:
    for name in ("scale", "scaling"):
        value = getattr(module, name, None)
        if isinstance(value, float):
            return value
    return 1.0 if hasattr(module, "has_relative_attention_bias") else 1 / math.sqrt(width)  # T5 scales nothing


def _hidden(
    module: nn.Module, rows: Tensor, t: int, s: int, mask: Tensor | None, padding: Tensor | None
) -> Tensor | None:
    """Which keys a query does not see, for broadcasting to (batch, heads, queries, keys)."""
    hidden: Tensor | None = None
    if mask is not None:
        hidden = (mask if mask.dtype == torch.bool else mask == -math.inf)[rows]
    elif getattr(module, "is_causal", False) is True and t == s:
        hidden = torch.arange(s, device=rows.device) > rows[:, None]
    if padding is not None:
        absent = (padding if padding.dtype == torch.bool else padding == -math.inf)[:, None, None, :]
        hidden = absent if hidden is None else hidden | absent
    return hidden
