"""The part of a model that training changes: what is averaged, saved and put back."""

from collections.abc import Mapping

from torch import Tensor, nn


def trained_state(model: nn.Module, like: nn.Module | None = None) -> dict[str, Tensor]:
    """A model's state without its frozen base: the parameters that require grad, and all buffers.

    Where every parameter is trained this is the whole state. It is the whole state too where the frozen parameters are
    fewer than the trained ones, by number of elements: they are then constants of the network (the frequencies of a
    Fourier embedding, say), which are drawn at random and would be lost, and not a base that can be had elsewhere.
    Cost: a walk over the modules; no tensor is copied.

    Args:
        model: The model to take the tensors from.
        like: A model of the same structure that says which parameters are trained, for a copy that itself trains
            nothing, such as an average; None: the model itself.

    Returns:
        The tensors by their names in `model.state_dict()`.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        >>> _ = model[0].requires_grad_(False)
        >>> list(trained_state(model))
        ['1.weight', '1.bias', '1.running_mean', '1.running_var', '1.num_batches_tracked']
    """
    base = _frozen_base(model if like is None else like)
    return {name: tensor for name, tensor in model.state_dict().items() if name not in base}


def load_trained_state(model: nn.Module, tensors: Mapping[str, Tensor], like: nn.Module | None = None) -> None:
    """Put back what `trained_state` gave: exactly its names, no more and no less.

    Args:
        model: The model to load into; its frozen parameters stay as they are.
        tensors: The state.
        like: As for `trained_state`.

    Raises:
        ValueError: If names or shapes are not those of the model's trained part; nothing is loaded then.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> _ = model.weight.requires_grad_(False)
        >>> load_trained_state(model, {"weight": model.weight})
        Traceback (most recent call last):
        ...
        ValueError: expected the model's 1 trained tensors, got 1 others: missing bias; unexpected weight; ...
    """
    own = trained_state(model, like)
    missing, unexpected = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    if missing or unexpected:
        parts = [
            f"{what} {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
            for what, names in (("missing", missing), ("unexpected", unexpected))
            if names
        ]
        raise ValueError(
            f"expected the model's {len(own)} trained tensors, got {len(tensors)} others: {'; '.join(parts)}; the "
            "weights are of a run that trained other parts: give the options that it was trained with"
        )
    wrong = [name for name, tensor in own.items() if tensor.shape != tensors[name].shape]
    if wrong:
        raise ValueError(
            f"expected {wrong[0]} of shape {tuple(own[wrong[0]].shape)}, got {tuple(tensors[wrong[0]].shape)} "
            f"({len(wrong)} such tensors); give the options (sizes, rank) that the run was trained with"
        )
    model.load_state_dict(dict(tensors), strict=False)


def _frozen_base(model: nn.Module) -> set[str]:
    sizes = {True: 0, False: 0}
    for parameter in model.parameters():
        sizes[parameter.requires_grad] += parameter.numel()
    if sizes[False] < sizes[True]:
        return set()
    # A parameter that two layers share is in the state under both names.
    named = model.named_parameters(remove_duplicate=False)
    return {name for name, parameter in named if not parameter.requires_grad}
