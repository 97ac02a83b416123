"""Every backbone: an example's code depends on it alone, any size fits, settings make it again."""

import json

import pytest
import torch

from lsdr.representation.models.images import ConvBackbone
from lsdr.representation.models.presets import PRESETS, default_model, find_preset
from lsdr.representation.models.projector import projector
from lsdr.representation.models.tables import TableBackbone
from lsdr.representation.models.text import TransformerBackbone, read_transformer

BERT = {
    "model_type": "bert",
    "vocab_size": 11,
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 6,
}


def images():
    return {"image": torch.rand(5, 3, 9, 13)}


def texts():
    tokens = torch.randint(3, 11, (5, 6))
    tokens[1, 2:] = 0
    tokens[2] = 0  # an empty text
    return {"tokens": tokens}


def rows():
    missing = torch.rand(5, 4) < 0.3
    return {"numeric": torch.randn(5, 2), "categorical": torch.randint(0, 3, (5, 2)), "missing": missing}


KINDS = {
    "image": (lambda: ConvBackbone(3, [0.5] * 3, [0.2] * 3, widths=[6, 10], depth=2, code=7, patch=2), images, 7),
    "text": (lambda: TransformerBackbone(BERT), texts, 8),
    "table": (lambda: TableBackbone(2, [3, 4], width=8, depth=2, code=5), rows, 5),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_code_depends_on_its_own_example_alone(kind):
    torch.manual_seed(0)
    build, inputs, width = KINDS[kind]
    backbone, batch = build().eval().double(), inputs()
    codes = backbone(batch)
    assert codes.shape == (5, width) == (5, backbone.width)
    assert codes.dtype == torch.float64
    assert bool(codes.isfinite().all())
    single = torch.cat([backbone({name: value[k : k + 1] for name, value in batch.items()}) for k in range(5)])
    torch.testing.assert_close(single, codes, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_gets_a_gradient_and_settings_are_plain(kind):
    torch.manual_seed(0)
    build, inputs, _ = KINDS[kind]
    backbone = build()
    backbone(inputs()).square().sum().backward()
    assert [name for name, each in backbone.named_parameters() if each.grad is None] == []
    again = type(backbone)(**json.loads(json.dumps(backbone.settings)))
    again.load_state_dict(backbone.state_dict())
    batch = inputs()
    assert torch.equal(again.eval()(batch), backbone.eval()(batch))
    names = dict(backbone.named_modules())
    assert len(backbone.blocks) >= 2
    assert all(name in names for name in backbone.blocks)


def test_images_of_every_size_and_number_of_channels_fit():
    for channels, height, width in ((1, 1, 1), (2, 8, 8), (5, 7, 40)):
        backbone = ConvBackbone(channels, [0.0] * channels, [1.0] * channels, widths=[4, 4, 4], depth=1, code=6)
        image = {"image": torch.rand(2, channels, height, width)}
        features = backbone.feature_map(image)
        assert features.shape[:2] == (2, 6)
        torch.testing.assert_close(features.mean((-2, -1)), backbone(image))


def test_the_first_convolution_makes_images_smaller():
    backbone = ConvBackbone(1, [0.0], [1.0], widths=[4], depth=1, code=6, patch=4)
    assert backbone.feature_map({"image": torch.rand(1, 1, 64, 128)}).shape == (1, 6, 16, 32)


def test_brightness_and_contrast_of_the_whole_data_set_are_taken_out():
    torch.manual_seed(0)
    first = ConvBackbone(1, [0.5], [0.25], widths=[4], depth=1, code=3)
    second = ConvBackbone(1, [0.0], [1.0], widths=[4], depth=1, code=3)
    second.load_state_dict({**first.state_dict(), "mean": second.mean, "deviation": second.deviation})
    image = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(first({"image": image}), second({"image": (image - 0.5) / 0.25}))


def test_padding_changes_no_code():
    torch.manual_seed(0)
    backbone = TransformerBackbone(BERT).eval()
    tokens = torch.randint(3, 11, (4, 3))
    longer = torch.cat([tokens, torch.zeros(4, 3, dtype=torch.int64)], 1)
    torch.testing.assert_close(backbone({"tokens": longer}), backbone({"tokens": tokens}))


def test_a_transformer_from_disk_keeps_its_weights_and_can_be_made_again(tmp_path):
    torch.manual_seed(0)
    made = TransformerBackbone(BERT).eval()
    made.transformer.save_pretrained(tmp_path)
    read = read_transformer(str(tmp_path), 11, 6, 0, dropout=0.3).eval()
    batch = texts()
    assert torch.equal(read(batch), made(batch))
    assert read.transformer.config.hidden_dropout_prob == 0.3
    again = TransformerBackbone(**json.loads(json.dumps(read.settings))).eval()
    again.load_state_dict(read.state_dict())
    assert torch.equal(again(batch), made(batch))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((12, 6), "knows 11 tokens and the tokenizer makes 12"), ((11, 7), "takes 6 tokens, not 7")],
)
def test_a_transformer_that_does_not_suit_the_tokens_is_refused(tmp_path, arguments, message):
    TransformerBackbone(BERT).transformer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        read_transformer(str(tmp_path), *arguments, 0, 0.0)


def test_a_folder_without_a_transformer_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no transformer"):
        read_transformer(str(tmp_path), 11, 6, 0, 0.0)
    TransformerBackbone(BERT).transformer.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ValueError, match="holds no transformer"):
        read_transformer(str(tmp_path), 11, 6, 0, 0.0)


def test_missing_categories_and_numbers_tell_apart():
    torch.manual_seed(0)
    backbone = TableBackbone(1, [3], width=8, depth=1, code=4)
    known = {
        "numeric": torch.zeros(1, 1),
        "categorical": torch.zeros(1, 1, dtype=torch.int64),
        "missing": torch.zeros(1, 2, dtype=torch.bool),
    }
    for name, other in (("numeric", 1.0), ("categorical", 2), ("missing", True)):
        assert not torch.allclose(backbone(known), backbone({**known, name: torch.full_like(known[name], other)}))


def test_a_projector_has_no_statistics_of_the_batch():
    torch.manual_seed(0)
    layers = projector(4, 6, depth=3)
    codes = torch.randn(7, 4)
    torch.testing.assert_close(layers(codes)[:2], layers(codes[:2]))
    assert layers(codes).shape == (7, 6)


def test_presets_are_found_by_modality():
    assert all(default_model(preset.modality) in PRESETS for preset in PRESETS.values())
    with pytest.raises(ValueError, match="did you mean conv-tiny"):
        find_preset("conv-tny", "image")
    with pytest.raises(ValueError, match="is for image data, these are table"):
        find_preset("conv-tiny", "table")
