"""Codes of data sets and of inputs, of the end and of every layer; encoders as plain values and back."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from lsdr.representation.codes import encode
from lsdr.representation.data.representation_data import prepare
from lsdr.representation.encoder import Encoder
from lsdr.representation.models.projector import projector
from lsdr.representation.saved import describe, rebuild

_spec = importlib.util.spec_from_file_location("small", Path(__file__).with_name("small.py"))
small = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(small)


@pytest.fixture(scope="module", params=["image", "table", "text"])
def task(request, tmp_path_factory):
    texts = small.texts(tmp_path_factory.mktemp("data") / "texts")
    options = {
        "image": {},
        "table": {"data": "breast-cancer"},
        "text": {"data": texts, "length": 8, "vocabulary": 300},
    }[request.param]
    return small.task(small.config(**options))


def test_a_data_set_and_its_inputs_have_the_same_codes_in_batches_of_any_size(task):
    encoder, count = task.encoder, 11
    encoder.train()
    inputs = prepare(task.dataset.__getitems__(list(range(count))), encoder.fields)
    codes = encode(encoder, inputs)
    assert codes.shape == (count, encoder.width) == (count, 8)
    assert (codes.dtype, codes.requires_grad) == (torch.float32, False)
    assert encoder.training
    whole = encode(encoder, task.dataset, batch_size=4)
    torch.testing.assert_close(whole[:count], codes)
    assert len(whole) == len(task.dataset)


def test_every_layer_has_codes_of_its_own(task):
    encoder, inputs = task.encoder, task.seen
    count = len(next(iter(inputs.values())))
    for layer in encoder.blocks():
        assert encode(encoder, inputs, layer=layer).shape[0] == count
        assert encode(encoder, inputs, layer=layer).ndim == 2
    torch.testing.assert_close(encode(encoder, inputs, layer="backbone"), encode(encoder, inputs))
    assert encode(encoder, inputs, layer="projector").shape == (count, 12)
    with pytest.raises(ValueError, match="no layer matches"):
        encode(encoder, inputs, layer="backbon")


def test_places_of_a_layer_are_averaged_over_an_examples_own(task):
    encoder = task.encoder
    last = encoder.blocks()[-2]
    if "tokens" in task.seen:  # the last block is followed by nothing but that mean
        torch.testing.assert_close(encode(encoder, task.seen, layer=last), encode(encoder, task.seen))
    if "image" in task.seen:
        features = encoder.eval().backbone.feature_map(task.seen).mean((-2, -1))
        torch.testing.assert_close(encode(encoder, task.seen, layer="backbone.last"), features)


def test_no_examples_are_refused(task):
    with pytest.raises(ValueError, match="got none"):
        encode(task.encoder, {name: value[:0] for name, value in task.seen.items()})


def test_an_encoder_is_made_again_from_plain_values(task):
    facts = json.loads(json.dumps(describe(task.encoder)))
    again = rebuild(facts)
    assert again.fields == task.encoder.fields
    again.load_state_dict(task.encoder.state_dict())
    torch.testing.assert_close(encode(again, task.seen), encode(task.encoder, task.seen), rtol=0, atol=0)
    with pytest.raises(ValueError, match="describes no encoder: KeyError"):
        rebuild({**facts, "modality": "sound"})
    with pytest.raises(ValueError, match="describes no encoder: TypeError"):
        rebuild({**facts, "backbone": {"what": 1}})


def test_an_encoder_without_a_projector(task):
    bare = Encoder(task.encoder.backbone, projector(8, 0), task.encoder.fields)
    again = rebuild(describe(bare))
    assert isinstance(again.projector, torch.nn.Identity)
    torch.testing.assert_close(bare.eval()(task.seen), bare.features(task.seen))


def test_half_precision_codes_are_widened(task):
    with torch.autocast("cpu", torch.bfloat16):
        assert task.encoder.features(task.seen).dtype == torch.float32
