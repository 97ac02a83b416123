"""Exported backbones: what the folder holds is enough, without LSDR."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lsdr.moments import Moments
from lsdr.representation.data.fields import ImageFields, TableFields
from lsdr.representation.data.texts import encode_texts, train_tokenizer
from lsdr.representation.encoder import Encoder
from lsdr.representation.export import export_backbone
from lsdr.representation.models.images import ConvBackbone
from lsdr.representation.models.tables import TableBackbone
from lsdr.representation.models.text import TransformerBackbone
from lsdr.representation.ordered_codes import OrderedCodes

TEXTS = ["a rose is a rose", "the sea", "", "roses by the sea are roses"]

# What any user has; LSDR is not to be had, from wherever. One process for all: torch and transformers load slowly.
ELSEWHERE = """
import os, re, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "lsdr":
            raise ImportError("lsdr is not here")
sys.meta_path.insert(0, Blocked())
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer
texts = {texts}
for kind, folder in {folders}.items():
    os.chdir(folder)
    inputs = load_file("../inputs.safetensors")
    found = {{"texts": texts, "k": 2, **inputs}}
    lines = re.search("```python\\n(.*?)```", open("README.md").read(), re.S)[1]
    exec(lines, found)
    model = AutoModel.from_pretrained(folder, trust_remote_code=kind != "text")
    assert not model.training
    if kind == "text":
        read = AutoTokenizer.from_pretrained(folder)
        tokens = read(texts, return_tensors="pt", padding="max_length", truncation=True)
        results = {{"transformers": tokens["input_ids"]}}
    else:
        names = {{"image": "pixel_values"}}
        results = {{"transformers": model(**{{names.get(n, n): v for n, v in inputs.items()}}).pooler_output}}
    results |= {{name: found[name] for name in ("codes", "first")}}
    save_file({{name: each.detach().contiguous() for name, each in results.items()}}, "../found.safetensors")
assert "lsdr" not in sys.modules
"""


def image_encoder():
    torch.manual_seed(0)
    fields = ImageFields((2, 8, 12), (0.4, 0.5), (0.2, 0.3))
    backbone = ConvBackbone(2, fields.mean, fields.deviation, widths=[8, 16], depth=1, code=6)
    return moved(Encoder(backbone, nn.Linear(6, 3), fields)), {"image": torch.rand(5, 2, 8, 12)}


def table_encoder():
    torch.manual_seed(0)
    fields = TableFields(("a", "b"), ("c",), (3,), (0.0, 1.0), (1.0, 2.0), (("x", "y"),))
    backbone = TableBackbone(2, [3], width=16, depth=1, code=6)
    inputs = {
        "numeric": torch.randn(5, 2),
        "categorical": torch.tensor([[0], [1], [2], [1], [0]]),
        "missing": torch.rand(5, 3) < 0.3,
    }
    return moved(Encoder(backbone, nn.Identity(), fields)), inputs


def text_encoder():
    torch.manual_seed(0)
    fields = train_tokenizer(TEXTS, vocabulary=300, length=8)
    settings = {
        "model_type": "bert",
        "vocab_size": fields.vocabulary,
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 8,
        "pad_token_id": 0,
    }
    encoder = Encoder(TransformerBackbone(settings), nn.Identity(), fields)
    return moved(encoder), {"tokens": torch.from_numpy(encode_texts(TEXTS, fields))}


def moved(encoder):
    """No weight as it was initialised: one that is not read back is seen."""
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return encoder.eval()


KINDS = {"image": image_encoder, "table": table_encoder, "text": text_encoder}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """One folder a modality, and what the encoder says to some examples."""
    found = {}
    for kind, build in KINDS.items():
        encoder, inputs = build()
        with torch.no_grad():
            codes = encoder.features(inputs)
        a, b = codes.double(), codes.double() + 0.1 * torch.randn(codes.shape).double()
        ordered = OrderedCodes.of(Moments.of(a, b))
        folder = export_backbone(encoder, tmp_path_factory.mktemp(kind) / "backbone", ordered=ordered)
        found[kind] = folder, inputs, codes, ordered(codes, 2)
    return found


@pytest.fixture(scope="module")
def elsewhere(exported):
    """What a process without LSDR finds: by the lines of the READMEs, and by transformers."""
    for folder, inputs, *_ in exported.values():
        save_file({name: each.contiguous() for name, each in inputs.items()}, folder.parent / "inputs.safetensors")
    folders = {kind: str(folder) for kind, (folder, *_) in exported.items()}
    hub = exported["image"][0].parent / "hub"
    environment = {**os.environ, "HF_HOME": str(hub), "HF_HUB_OFFLINE": "1", "PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
    script = ELSEWHERE.format(texts=repr(TEXTS), folders=repr(folders))
    done = subprocess.run([sys.executable, "-c", script], cwd=hub.parent, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return {kind: load_file(folder.parent / "found.safetensors") for kind, (folder, *_) in exported.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_the_lines_of_the_readme_run_it_without_lsdr(kind, exported, elsewhere):
    folder, _, codes, first = exported[kind]
    lines = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.S)[1]
    assert len([line for line in lines.splitlines() if line.strip()]) <= 15
    torch.testing.assert_close(elsewhere[kind]["codes"], codes, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(elsewhere[kind]["first"].float(), first, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_loads_it_by_its_folder(kind, exported, elsewhere):
    """AutoModel finds network and weights: of images and tables by the code beside them, of texts by itself."""
    _, inputs, codes, _ = exported[kind]
    expected, found = inputs["tokens"] if kind == "text" else codes, elsewhere[kind]["transformers"]
    if kind == "text":  # a tokenizer alone has no token for a text without one
        expected, found = ([rows[0], rows[1], rows[3]] for rows in (expected, found))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_the_configuration_speaks_the_names_that_users_know(exported):
    config = json.loads((exported["image"][0] / "config.json").read_text(encoding="utf-8"))
    assert (config["num_channels"], config["image_size"], config["hidden_size"]) == (2, [8, 12], 6)
    assert config["num_features"] == 6
    assert config["pretrained_cfg"]["input_size"] == [2, 8, 12]
    assert config["feature_info"] == [
        {"module": "stages.0.0", "num_chs": 8, "reduction": 1},
        {"module": "stages.1.0", "num_chs": 16, "reduction": 2},
    ]
    table = json.loads((exported["table"][0] / "config.json").read_text(encoding="utf-8"))
    assert table["fields"]["levels"] == [["x", "y"]]
    text = json.loads((exported["text"][0] / "config.json").read_text(encoding="utf-8"))
    assert (text["model_type"], text["hidden_size"]) == ("bert", 8)


def test_no_projector_and_no_pickle_goes_along(exported):
    for folder, *_ in exported.values():
        assert {path.suffix for path in folder.iterdir()} <= {".json", ".safetensors", ".py", ".md"}
        names = list(load_file(folder / "model.safetensors"))
        assert names
        assert not [name for name in names if "projector" in name]


def test_export_leaves_the_encoder_as_it_was(tmp_path):
    encoder, _ = image_encoder()
    encoder.train()
    before = {name: each.clone() for name, each in encoder.state_dict().items()}
    state = torch.get_rng_state()
    export_backbone(encoder, tmp_path)
    assert encoder.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], each) for name, each in encoder.state_dict().items())
    assert not (tmp_path / "ordered_codes.safetensors").exists()
    assert "ordered" not in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_a_backbone_that_needs_more_than_torch_is_refused(tmp_path):
    source = tmp_path / "mine.py"
    source.write_text("import numpy\nfrom torch import nn\nclass Mine(nn.Module):\n    settings = {}\n    width = 2\n")
    sys.path.insert(0, str(tmp_path))
    try:
        import mine
    finally:
        sys.path.remove(str(tmp_path))
    encoder = Encoder(mine.Mine(), nn.Identity(), TableFields((), (), (), (), (), ()))
    with pytest.raises(ValueError, match="imports 'numpy'"):
        export_backbone(encoder, tmp_path / "out")
