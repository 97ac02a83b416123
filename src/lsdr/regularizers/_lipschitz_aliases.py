"""What a traced model writes in place: its graph has a new node for the result, and the old one is another value."""

import inspect
import operator
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

# What gives out its first argument, or a view of it.
_VIEWS: tuple[Any, ...] = (
    torch.flatten, "flatten", "view", "reshape", torch.reshape, "unflatten", torch.unflatten, "permute", torch.permute,
    "transpose", torch.transpose, "movedim", torch.movedim, "squeeze", torch.squeeze, "unsqueeze", torch.unsqueeze,
    "chunk", torch.chunk, "split", torch.split, "detach", "float", "double", "to", "contiguous", operator.getitem,
    getattr, F.dropout,
)  # fmt: skip
_VIEWING = (nn.Flatten, nn.Unflatten, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
_WRITING = (operator.iadd, operator.isub, operator.imul, operator.itruediv)


def read_after_write(traced: fx.GraphModule, node: fx.Node) -> Iterator[tuple[fx.Node, fx.Node]]:
    """What a node writes in place, with each later node that reads it by an older name; nothing if it does not write.

    Args:
        traced: The traced model.
        node: A node of its graph.

    Yields:
        The node whose value is written over, and one that reads its memory afterwards.
    """
    if not _writes(traced, node):
        return
    nodes = list(traced.graph.nodes)
    place = nodes.index(node)
    memory: dict[fx.Node, fx.Node] = {}
    for each in nodes:
        source = _first(each) if _writes(traced, each) or _views(traced, each) else None
        memory[each] = each if source is None else memory[source]
    written = _first(node)
    if written is None:
        return
    older = {each for each in nodes[:place] if memory[each] is memory[written]}
    for reader in nodes[place + 1 :]:
        if older.intersection(reader.all_input_nodes):
            yield written, reader


def _first(node: fx.Node) -> fx.Node | None:
    """The first argument, if it is a node."""
    given = node.args[0] if node.args else node.kwargs.get("input")
    return given if isinstance(given, fx.Node) else None


def _views(traced: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return isinstance(traced.get_submodule(str(node.target)), _VIEWING)
    return node.op in ("call_function", "call_method") and node.target in _VIEWS


def _writes(traced: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return getattr(traced.get_submodule(str(node.target)), "inplace", False) is True
    if node.op == "call_method":
        return str(node.target).endswith("_")
    if node.op != "call_function":
        return False
    if node.target in _WRITING:
        return True
    try:
        bound = inspect.signature(node.target).bind(*node.args, **node.kwargs)  # type: ignore[arg-type]
    except (TypeError, ValueError):  # a builtin, of which none with a rule writes
        return False
    return bound.arguments.get("inplace", False) is True
