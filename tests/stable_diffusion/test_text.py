"""Captions are encoded as diffusers' own pipelines encode prompts, and what is cut off is said."""

import importlib.util
import json
import shutil
from pathlib import Path

import diffusers
import pytest
import torch

from lsdr.stable_diffusion.pipeline import load_pipeline
from lsdr.stable_diffusion.text import encode_captions, lost_tokens

_spec = importlib.util.spec_from_file_location("tiny", Path(__file__).with_name("tiny.py"))
tiny = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tiny)

CAPTIONS = ["a photo of a flower", "", "Temple,  in CHINA; été 漢字 123", "red roof and blue sky"]
LONG = "xq" * 100 + " the end"  # letter by letter: far more than 77 tokens


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    return {family: tiny.make(folder / family, family) for family in tiny.FAMILIES}


@pytest.fixture(scope="module")
def pipelines(folders):
    return {family: load_pipeline(folder) for family, folder in folders.items()}


@torch.no_grad()
def theirs(folder, captions, **parts):
    """What the pipeline of diffusers makes of the prompts."""
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder, local_files_only=True, **parts)
    if isinstance(pipe, diffusers.StableDiffusionPipeline):
        return {"encoder_hidden_states": pipe.encode_prompt(captions, "cpu", 1, False)[0]}
    if isinstance(pipe, diffusers.StableDiffusionXLPipeline):
        states, _, pooled, _ = pipe.encode_prompt(captions, device="cpu", do_classifier_free_guidance=False)
        return {"encoder_hidden_states": states, "text_embeds": pooled}
    if isinstance(pipe, diffusers.StableDiffusion3Pipeline):
        states, _, pooled, _ = pipe.encode_prompt(captions, None, None, do_classifier_free_guidance=False)
        return {"encoder_hidden_states": states, "pooled_projections": pooled}
    states, pooled, _ = pipe.encode_prompt(captions, None)
    return {"encoder_hidden_states": states, "pooled_projections": pooled}


@pytest.mark.filterwarnings("ignore:1 of 5 captions are longer")
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_as_the_pipeline_of_diffusers_encodes_them(folders, pipelines, family):
    captions = [*CAPTIONS, LONG]
    ours, expected = encode_captions(pipelines[family], captions), theirs(folders[family], captions)
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        assert ours[name].shape == value.shape
        torch.testing.assert_close(ours[name], value, rtol=1e-5, atol=1e-5)
    assert all(each.dtype == torch.float32 and each.device.type == "cpu" for each in ours.values())


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_rows_are_the_captions(pipelines, family):
    pipeline = pipelines[family]
    together = encode_captions(pipeline, CAPTIONS)
    for index, caption in enumerate(CAPTIONS):
        for name, value in encode_captions(pipeline, [caption]).items():
            torch.testing.assert_close(together[name][index : index + 1], value, rtol=1e-5, atol=1e-5)
    for value in together.values():
        assert torch.pdist(value.flatten(1)).min() > 0.1  # different captions, different embeddings
        assert not value.requires_grad


def test_more_captions_than_go_at_once(pipelines):
    pipeline = pipelines["sd"]
    captions = [f"a photo of {number} flower" for number in range(40)]
    states = encode_captions(pipeline, captions)["encoder_hidden_states"]
    assert len(states) == 40
    alone = encode_captions(pipeline, captions[-1:])["encoder_hidden_states"]
    torch.testing.assert_close(states[-1:], alone, rtol=1e-5, atol=1e-5)


def test_sd3_without_its_t5_takes_zeros_in_its_place(folders, tmp_path):
    folder = Path(shutil.copytree(folders["sd3"], tmp_path / "sd3"))
    index = json.loads((folder / "model_index.json").read_text())
    absent = {"text_encoder_3": [None, None], "tokenizer_3": [None, None]}
    (folder / "model_index.json").write_text(json.dumps(index | absent))
    ours, expected = (
        encode_captions(load_pipeline(folder), CAPTIONS),
        theirs(folder, CAPTIONS, text_encoder_3=None, tokenizer_3=None),
    )
    for name, value in expected.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-5, atol=1e-5)
    assert not ours["encoder_hidden_states"][:, 77:].any()


def test_flux_without_guidance_has_the_256_tokens_of_the_distilled_model(tmp_path):
    folder = tiny.make(tmp_path / "schnell", "flux", network={"guidance_embeds": False})
    assert encode_captions(load_pipeline(folder), ["a"])["encoder_hidden_states"].shape == (1, 256, 32)


def test_a_text_encoder_with_a_mask(folders, pipelines, tmp_path):
    folder = Path(shutil.copytree(folders["sd"], tmp_path / "masked"))
    file = folder / "text_encoder" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"use_attention_mask": True}))
    ours = encode_captions(load_pipeline(folder), CAPTIONS)["encoder_hidden_states"]
    torch.testing.assert_close(ours, theirs(folder, CAPTIONS)["encoder_hidden_states"], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(ours, encode_captions(pipelines["sd"], CAPTIONS)["encoder_hidden_states"])


@pytest.mark.parametrize("family", ["sd", "sdxl", "flux"])
def test_what_is_cut_off_is_said(pipelines, family):
    pipeline = pipelines[family]
    captions = [LONG if family != "flux" else LONG * 3, "a flower"]
    lost = lost_tokens(pipeline, captions)
    assert lost[0] > 0
    assert lost[1] == 0
    with pytest.warns(UserWarning, match=rf"1 of 2 captions are longer .* cut off, {lost[0]} tokens of 'xqxq"):
        encode_captions(pipeline, captions)


def test_lost_tokens_are_counted_to_the_token(pipelines):
    pipeline = pipelines["sd"]
    assert lost_tokens(pipeline, ["q " * 75, "q " * 76, "q " * 80, ""]) == [0, 1, 5, 0]  # two marks of 77 are not text


def test_what_one_encoder_reads_is_not_lost(pipelines):
    assert lost_tokens(pipelines["sd3"], ["q " * 100]) == [0]  # the T5 reads 256 tokens


def test_no_captions(pipelines):
    with pytest.raises(ValueError, match="no captions to encode"):
        encode_captions(pipelines["sd"], [])
