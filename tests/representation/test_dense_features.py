"""Dense features: maps of places that average to the codes."""

import pytest
import torch
from torch import nn

from lsdr.representation.data.fields import ImageFields, TableFields
from lsdr.representation.dense_features import dense_features
from lsdr.representation.encoder import Encoder
from lsdr.representation.models.images import ConvBackbone
from lsdr.representation.models.tables import TableBackbone


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    backbone = ConvBackbone(3, [0.4] * 3, [0.2] * 3, widths=[8, 16], depth=1, code=6)
    for parameter in backbone.parameters():
        nn.init.normal_(parameter, std=0.3)
    return Encoder(backbone, nn.Linear(6, 4), ImageFields((3, 8, 8), (0.4,) * 3, (0.2,) * 3))


def test_the_map_averages_to_the_codes(encoder):
    image = torch.rand(2, 3, 12, 20)
    maps = dense_features(encoder, image)
    assert list(maps) == ["backbone"]
    assert maps["backbone"].shape[:2] == (2, 6)
    torch.testing.assert_close(maps["backbone"].mean((2, 3)), encoder.features({"image": image}))


def test_layers_are_had_by_name_in_the_order_of_depth(encoder):
    maps = dense_features(encoder, torch.rand(2, 3, 12, 20), "backbone.stages.?.?")
    assert {name: tuple(each.shape) for name, each in maps.items()} == {
        "backbone.stages.0.0": (2, 8, 12, 20),
        "backbone.stages.1.0": (2, 16, 6, 10),
    }
    assert set(maps) == {name for name in encoder.blocks() if "stages" in name}


def test_a_place_is_where_it_was_in_the_image(encoder):
    """What changes in one corner changes the map there, and only there but for normalisation over the image."""
    image = torch.zeros(1, 3, 32, 32)
    changed = image.clone()
    changed[..., :4, 28:] = 1
    layer = "backbone.stem"
    before, after = (dense_features(encoder, each, layer)[layer] for each in (image, changed))
    moved = (after - before).abs().amax((0, 1))
    assert moved[:5, 27:].min() > 0
    moved[:5, 27:] = 0
    assert moved.max() == 0


def test_the_encoder_is_left_as_it_was_and_gradients_flow_where_they_may(encoder):
    encoder.train()
    image = torch.rand(1, 3, 8, 8, requires_grad=True)
    dense_features(encoder, image)["backbone"].sum().backward()
    assert encoder.training
    assert image.grad.abs().sum() > 0
    assert encoder.backbone.stem.weight.grad is not None
    encoder.zero_grad(set_to_none=True)
    with torch.no_grad():
        assert not dense_features(encoder, image)["backbone"].requires_grad
    assert not [module for module in encoder.modules() if module._forward_hooks]


def test_it_runs_in_evaluation_mode(encoder):
    modes = []
    hook = encoder.backbone.stem.register_forward_hook(lambda module, _, output: modes.append(module.training))
    encoder.train()
    dense_features(encoder, torch.rand(1, 3, 8, 8))
    hook.remove()
    assert modes == [False]
    assert encoder.backbone.stem.training


@pytest.mark.parametrize(
    ("layers", "channels", "message"),
    [
        (None, 1, "images of 3 channels"),
        ("backbone.nothing", 3, "nothing"),
        ("projector", 3, "not run for feature maps"),
    ],
)
def test_what_gives_no_map_is_refused(encoder, layers, channels, message):
    with pytest.raises(ValueError, match=message):
        dense_features(encoder, torch.rand(1, channels, 8, 8), layers)


def test_tables_have_no_places():
    table = Encoder(
        TableBackbone(2, [], width=8, depth=1, code=4),
        nn.Identity(),
        TableFields(("a", "b"), (), (), (0.0,) * 2, (1.0,) * 2, ()),
    )
    with pytest.raises(ValueError, match="TableBackbone has no feature_map"):
        dense_features(table, torch.rand(1, 1, 8, 8))
