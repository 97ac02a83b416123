"""Call whatever network there is: a diffusers UNet, DiT or text-conditioned network, or a module of the user's own."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lsdr.probes.conditioning import check_conditioning, each_tensor


def call_model(
    model: Any,
    x: Float[Tensor, "b c *dims"],
    t: Float[Tensor, " b"],
    conditioning: Int[Tensor, "..."] | Mapping[str, Any] | None = None,
) -> Float[Tensor, "b c *dims"]:
    """The network's prediction as a tensor shaped like x, in the precision of x.

    The network is called as `model(x, t)`; with class labels as `model(x, t, class_labels=labels)`; with a mapping by
    keyword, as `model(x, timestep=t, **conditioning)`, which is how Stable Diffusion's networks take text embeddings.
    It may return a tensor, a tuple whose first entry is one, or an object with `.sample`. Where the prediction has
    twice the channels of x (a learned variance, Nichol & Dhariwal 2021), the second half is dropped. A diffusers DiT
    insists on labels: one built for a single class gets label 0.

    x and the floating-point tensors of a mapping are cast to the type of the network's parameters, so weights in
    bfloat16 take float32 images and embeddings; quantized weights of a byte or less do not count. Integers stay: SDXL's
    `time_ids` are exact in a network of bfloat16 if they are given as integers, and rounded to 8 bits (1017 becomes
    1016) if as floats.

    Args:
        model: Any callable; may be wrapped by DistributedDataParallel or torch.compile.
        x: The input, already scaled as the network expects.
        t: The time that the network is conditioned on, one float per example.
        conditioning: Class labels, shape (b,); or what the network is to be given by keyword, tensors with one entry
            per example, mappings of them and other values; or None.

    Returns:
        The prediction, shaped like x.

    Raises:
        ValueError: If labels are missing for a DiT of several classes, or a mapping for a network with cross attention;
            if there is not one entry per example; or if the prediction has another shape.
        TypeError: If the network returns something that holds no tensor.

    Example:
        >>> call_model(lambda x, t: (2 * x,), torch.ones(1, 1, 1, 1), torch.zeros(1))
        tensor([[[[2.]]]])
    """
    inner = unwrap(model)
    dtype = _working_type(inner)
    given = x if dtype is None else x.to(dtype)
    if isinstance(conditioning, Mapping):
        check_conditioning(conditioning, len(x))
        output = model(given, timestep=t, **each_tensor(lambda name, each: _in_type(each, dtype), conditioning))
    else:
        labels = _labels(inner, x, conditioning)
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


def _labels(inner: Any, x: Tensor, labels: Tensor | None) -> Tensor | None:
    """The class labels that the network is to be called with, checked."""
    if labels is not None and labels.shape != (len(x),):
        raise ValueError(f"labels have shape {tuple(labels.shape)} for a batch of {len(x)}; pass one label per example")
    config = getattr(inner, "config", None)
    attends = ("cross_attention_dim", "joint_attention_dim")
    if any(getattr(config, name, None) is not None for name in attends):
        raise ValueError(
            f"{type(inner).__name__} attends to text and was given {'no' if labels is None else 'a tensor as'} "
            "conditioning; pass a mapping of what it takes by keyword, as {'encoder_hidden_states': embeddings}"
        )
    classes = getattr(config, "num_embeds_ada_norm", None)
    if labels is None and classes is not None:
        if classes != 1:
            raise ValueError(f"this DiT has {classes} classes and needs labels; pass int64 labels, shape (b,)")
        return torch.zeros(len(x), dtype=torch.long, device=x.device)
    return labels


def _working_type(inner: Any) -> torch.dtype | None:
    """The type of the first parameter that is computed with; quantized ones, of a byte or less, are only stored so."""
    parameters = inner.parameters() if isinstance(inner, nn.Module) else ()
    types = (each.dtype for each in parameters if each.is_floating_point() and each.dtype.itemsize > 1)
    return next(types, None)


def _in_type(each: Tensor, dtype: torch.dtype | None) -> Tensor:
    return each if dtype is None or not each.is_floating_point() else each.to(dtype)


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
