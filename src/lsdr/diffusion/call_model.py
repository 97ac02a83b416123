"""Call whatever network there is: a diffusers UNet2DModel, a diffusers DiT, or a module of the user's own."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


def call_model(
    model: Any,
    x: Float[Tensor, "b c *dims"],
    t: Float[Tensor, " b"],
    labels: Int[Tensor, "..."] | None = None,
) -> Float[Tensor, "b c *dims"]:
    """The network's prediction as a tensor shaped like x, in the precision of x.

    The network is called as `model(x, t)`, or `model(x, t, class_labels=labels)` when there are labels. It may return
    a tensor, a tuple whose first entry is one, or an object with `.sample`. Where the prediction has twice the channels
    of x (a learned variance, Nichol & Dhariwal 2021), the second half is dropped. A diffusers DiT insists on labels:
    one built for a single class gets label 0. x is cast to the type of the network's parameters, so weights in bfloat16
    take float32 images.

    Args:
        model: Any callable; may be wrapped by DistributedDataParallel or torch.compile.
        x: The input, already scaled as the network expects.
        t: The time that the network is conditioned on, one float per example.
        labels: Class labels, shape (b,), or None.

    Returns:
        The prediction, shaped like x.

    Raises:
        ValueError: If labels are missing for a DiT of several classes, not one per example, or the prediction has
            another shape.
        TypeError: If the network returns something that holds no tensor.

    Example:
        >>> call_model(lambda x, t: (2 * x,), torch.ones(1, 1, 1, 1), torch.zeros(1))
        tensor([[[[2.]]]])
    """
    if labels is not None and labels.shape != (len(x),):
        raise ValueError(f"labels have shape {tuple(labels.shape)} for a batch of {len(x)}; pass one label per example")
    inner = unwrap(model)
    classes = getattr(getattr(inner, "config", None), "num_embeds_ada_norm", None)
    if labels is None and classes is not None:
        if classes != 1:
            raise ValueError(f"this DiT has {classes} classes and needs labels; pass int64 labels, shape (b,)")
        labels = torch.zeros(len(x), dtype=torch.long, device=x.device)
    weight = next(inner.parameters(), None) if isinstance(inner, nn.Module) else None
    given = x if weight is None else x.to(weight.dtype)
    output = model(given, t) if labels is None else model(given, t, class_labels=labels)
    prediction = _tensor_of(output)
    if prediction.ndim == x.ndim and prediction.shape[1] == 2 * x.shape[1]:
        prediction = prediction.chunk(2, dim=1)[0]
    if prediction.shape != x.shape:
        raise ValueError(
            f"the network returned shape {tuple(prediction.shape)} for an input of shape {tuple(x.shape)}; "
            "it must return the input's shape (or twice its channels, for a learned variance)"
        )
    return prediction.to(x.dtype)


def unwrap(model: Any) -> Any:
    """The network inside DistributedDataParallel, DataParallel and torch.compile.

    Example:
        >>> linear = nn.Linear(1, 1)
        >>> unwrap(nn.DataParallel(linear)) is linear
        True
    """
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif "_orig_mod" in getattr(model, "_modules", {}):
            model = model._modules["_orig_mod"]
        else:
            return model


def _tensor_of(output: Any) -> Tensor:
    found = getattr(output, "sample", output)
    if isinstance(found, tuple | list) and found:
        found = found[0]
    if not isinstance(found, Tensor):
        raise TypeError(
            f"the network returned a {type(output).__name__}; it must return a tensor, a tuple that begins with one, "
            "or an object with .sample"
        )
    return found
