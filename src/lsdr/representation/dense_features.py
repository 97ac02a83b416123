"""Features of places: what heads for detection and segmentation, and matching of parts, stand on."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor

from lsdr.layers.capture import capture
from lsdr.layers.select import Layers
from lsdr.probes.evaluating import evaluating
from lsdr.representation.encoder import Encoder


def dense_features(
    encoder: Encoder, image: Float[Tensor, "n c height width"], layers: Layers | None = None
) -> dict[str, Tensor]:
    r"""Feature maps of images of any height and width.

    .. math:: F_{\cdot p} = f_p(x), \qquad \tfrac1{hw} \textstyle\sum_p F_{\cdot p} = f(x)

    The map "backbone" averages to the code, so it lies in the space that the objective shaped; every other layer is to
    be had by its name. The encoder is in evaluation mode meanwhile and is left as it was. Gradients flow where they
    are enabled: call it under `torch.no_grad()` for a frozen backbone.

    Cost: one forward pass of the backbone. A map's stride is the ratio of the image's height to its own.

    Args:
        encoder: An encoder of images.
        image: Pixels in [0, 1], with the encoder's number of channels.
        layers: Which layers, by patterns of their names as in `encoder.blocks()` ("backbone.stages.*"); None: the
            backbone's last map.

    Returns:
        Maps (n, F, h, w) by the names of their layers, in the order in which they were computed.

    Raises:
        ValueError: If the encoder is none of images, the channels are not its own, no layer matches, or a layer's
            output is no map.

    Example:
        >>> import torch
        >>> from lsdr.representation.data.fields import ImageFields
        >>> from lsdr.representation.models.images import ConvBackbone
        >>> backbone = ConvBackbone(1, [0.5], [0.2], widths=[8, 16], depth=1, code=32)
        >>> encoder = Encoder(backbone, torch.nn.Identity(), ImageFields((1, 8, 8), (0.5,), (0.2,)))
        >>> maps = dense_features(encoder, torch.rand(2, 1, 12, 16), "backbone.stages.?.0")
        >>> {name: tuple(each.shape) for name, each in maps.items()}
        {'backbone.stages.0.0': (2, 8, 12, 16), 'backbone.stages.1.0': (2, 16, 6, 8)}
    """
    backbone: Any = encoder.backbone
    if not hasattr(backbone, "feature_map"):
        raise ValueError(f"dense features are of images, and {type(backbone).__name__} has no feature_map")
    channels = backbone.settings["channels"]
    if image.shape[1] != channels:
        raise ValueError(f"the encoder takes images of {channels} channels, got shape {tuple(image.shape)}")
    found: dict[str, Tensor] = {}
    with evaluating(encoder):
        if layers is None:
            return {"backbone": backbone.feature_map({"image": image})}
        # The encoder's own forward is not called: a layer of the projector is never reached, and said to be missing.
        with capture(encoder, layers, lambda name, module, output: found.update({name: output})) as selected:
            backbone.feature_map({"image": image})
    _check(found, selected)
    return found


def _check(found: Mapping[str, Tensor], selected: Mapping[str, Any]) -> None:
    for name in selected:
        if name not in found:
            raise ValueError(f"layer {name!r} is not run for feature maps: select layers of the backbone")
        if found[name].ndim != 4:
            raise ValueError(f"layer {name!r} returns shape {tuple(found[name].shape)}, which is no map (n, F, h, w)")
