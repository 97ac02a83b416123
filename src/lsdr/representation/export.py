"""A frozen backbone for other people: a folder as transformers and timm lay it out, to be loaded without LSDR."""

import ast
import inspect
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from lsdr import runs
from lsdr.representation.data.fields import ImageFields, TextFields
from lsdr.representation.dense_features import dense_features
from lsdr.representation.encoder import Encoder
from lsdr.representation.ordered_codes import OrderedCodes

# What a backbone's file may import: anybody who can use the weights has these.
_EVERYWHERE = ("collections", "dataclasses", "functools", "math", "typing", "torch")

_MODELING = '''"""The exported backbone as a model of transformers.

    model = AutoModel.from_pretrained(FOLDER, trust_remote_code=True)
"""

from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from .backbone import {kind}


class LsdrConfig(PretrainedConfig):
    model_type = "{model_type}"

    def __init__(self, settings=None, **others):
        self.settings = settings or {{}}
        super().__init__(**others)


class LsdrModel(PreTrainedModel):
    config_class = LsdrConfig
    main_input_name = "{input}"

    def __init__(self, config):
        super().__init__(config)
        self.backbone = {kind}(**config.settings)
        self.post_init()

{forward}
'''

_FORWARD = {
    "image": '''    def forward(self, pixel_values, **ignored):
        """Pixels in [0, 1], (n, C, H, W), to features of places (n, F, h, w) and their mean (n, F)."""
        maps = self.backbone.feature_map({"image": pixel_values})
        return BaseModelOutputWithPooling(last_hidden_state=maps, pooler_output=maps.mean((-2, -1)))''',
    "table": '''    def forward(self, numeric, categorical, missing, **ignored):
        """Standardised numbers (n, p), codes of categories (n, q) and what is missing (n, p + q) to codes (n, F)."""
        codes = self.backbone({"numeric": numeric, "categorical": categorical, "missing": missing})
        return BaseModelOutputWithPooling(last_hidden_state=codes, pooler_output=codes)''',
}

_LOAD = """import importlib.util, json
from safetensors.torch import load_file
folder = "."
config = json.load(open(f"{folder}/config.json"))
spec = importlib.util.spec_from_file_location("backbone", f"{folder}/backbone.py")
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
backbone = getattr(module, config["backbone"])(**config["settings"]).eval()
weights = load_file(f"{folder}/model.safetensors")
backbone.load_state_dict({name.removeprefix("backbone."): tensor for name, tensor in weights.items()})
"""

_CODES = {
    "image": _LOAD
    + """maps = backbone.feature_map({"image": image})  # image (n, C, H, W) in [0, 1], maps (n, F, h, w)
codes = maps.mean((-2, -1))
""",
    "table": _LOAD
    + """codes = backbone({"numeric": numeric, "categorical": categorical, "missing": missing})
""",
    "text": """import torch
from tokenizers import Tokenizer
from transformers import AutoModel
folder = "."
tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
model = AutoModel.from_pretrained(folder).eval()
found = tokenizer.encode_batch(texts)
tokens, mask = torch.tensor([each.ids for each in found]), torch.tensor([each.attention_mask for each in found])
tokens[mask.sum(1) == 0, 0], mask[:, 0] = UNKNOWN, 1  # a text without a token is one unknown one
hidden = model(input_ids=tokens, attention_mask=mask).last_hidden_state  # of tokens, (n, L, F)
codes = (hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
""",
}

_ORDERED = """ordered = load_file(f"{folder}/ordered_codes.safetensors")
first = ((codes.double() - ordered["mean"]) @ ordered["rotation"] * ordered["scales"])[:, :k]  # the best k dimensions
"""

_TABLE = """
`numeric` (n, p) holds (x - mean) / deviation of the columns `fields.numeric` of config.json, 0 where missing;
`categorical` (n, q) the codes 1, 2, ... of `fields.levels`, 0 where missing or unknown; `missing` (n, p + q) is True
where a cell is missing.
"""


def export_backbone(encoder: Encoder, folder: str | Path, *, ordered: OrderedCodes | None = None) -> Path:
    """Write a backbone, without projector, so that it loads without LSDR.

    - config.json: sizes by the names that transformers and timm use (hidden_size, num_features, pretrained_cfg with
      input_size, feature_info with channels and reductions of the stages), "backbone" and "settings" to build it with.
    - model.safetensors: the weights. Of a text encoder config.json and weights are those of transformers itself.
    - backbone.py: the network, which imports torch alone, and modeling_lsdr.py, which makes it a model of transformers:
      `AutoModel.from_pretrained(folder, trust_remote_code=True)`. A text encoder needs neither.
    - tokenizer.json of a text encoder; ordered_codes.safetensors with `ordered`.
    - README.md: the lines that load and run it.

    Args:
        encoder: The encoder; left as it was.
        folder: Where to; made if missing, and files of these names replaced.
        ordered: Directions of the codes, best first.

    Returns:
        The folder.

    Raises:
        ValueError: If the backbone is of a class whose file imports more than torch, or without `settings`.
    """
    folder, backbone, fields = Path(folder), encoder.backbone, encoder.fields
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(fields, TextFields):
        _write_text(backbone, fields, folder)
        kind = "text"
    else:
        kind = "image" if isinstance(fields, ImageFields) else "table"
        _write_module(encoder, kind, folder)
    if ordered is not None:
        with runs.atomic(folder / "ordered_codes.safetensors") as temporary:
            save_file(ordered.tensors() | {"scales": ordered.scales.cpu()}, temporary)
    readme = _readme(kind, ordered)
    if isinstance(fields, TextFields):
        readme = readme.replace("UNKNOWN", str(fields.unknown))
    runs.write_text(folder / "README.md", readme)
    return folder


def _write_module(encoder: Encoder, kind: str, folder: Path) -> None:
    backbone: Any = encoder.backbone
    name = type(backbone).__name__
    source = _source(type(backbone))
    config: dict[str, Any] = {
        "architectures": ["LsdrModel"],
        "model_type": f"lsdr_{kind}",
        "auto_map": {"AutoConfig": "modeling_lsdr.LsdrConfig", "AutoModel": "modeling_lsdr.LsdrModel"},
        "backbone": name,
        "settings": backbone.settings,
        "hidden_size": encoder.width,
        "num_features": encoder.width,
        "fields": asdict(encoder.fields),
    }
    if isinstance(encoder.fields, ImageFields):
        config |= _image_facts(encoder, encoder.fields)
    runs.write_json(folder / "config.json", config)
    weights = {f"backbone.{each}": tensor.detach().cpu().contiguous() for each, tensor in backbone.state_dict().items()}
    with runs.atomic(folder / "model.safetensors") as temporary:
        save_file(weights, temporary, metadata={"format": "pt"})
    runs.write_text(folder / "backbone.py", source)
    values = {"model_type": f"lsdr_{kind}", "input": "pixel_values" if kind == "image" else "numeric"}
    runs.write_text(folder / "modeling_lsdr.py", _MODELING.format(kind=name, forward=_FORWARD[kind], **values))


def _image_facts(encoder: Encoder, fields: ImageFields) -> dict[str, Any]:
    """Sizes by the names that users of transformers and timm know; the backbone itself standardises its input."""
    height, width = fields.shape[1:]
    facts = []
    weight = next(encoder.parameters())
    names = [name for name in encoder.blocks() if name != "backbone"]
    image = torch.zeros(1, *fields.shape, dtype=weight.dtype, device=weight.device)
    with torch.no_grad():
        for name, found in dense_features(encoder, image, names).items():
            reduction = round(max(height / found.shape[2], width / found.shape[3]))
            facts.append({"module": name.removeprefix("backbone."), "num_chs": found.shape[1], "reduction": reduction})
    return {
        "num_channels": fields.shape[0],
        "image_size": [height, width],
        "pretrained_cfg": {
            "input_size": list(fields.shape),
            "fixed_input_size": False,
            "num_classes": 0,
            "mean": [0.0] * fields.shape[0],
            "std": [1.0] * fields.shape[0],
        },
        "feature_info": facts,
    }


def _write_text(backbone: Any, fields: TextFields, folder: Path) -> None:
    """A transformer is written by transformers itself, and its tokenizer beside it."""
    backbone.transformer.save_pretrained(folder)
    tokenizer = Tokenizer.from_str(fields.tokenizer)
    padding = tokenizer.id_to_token(fields.padding)
    tokenizer.enable_truncation(fields.length)
    tokenizer.enable_padding(pad_id=fields.padding, pad_token=padding)
    runs.write_text(folder / "tokenizer.json", tokenizer.to_str())
    facts = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": padding, "model_max_length": fields.length}
    runs.write_json(folder / "tokenizer_config.json", facts)


def _source(kind: type) -> str:
    """The file that a backbone's class stands in, if anybody can run it."""
    path = inspect.getsourcefile(kind)
    if path is None:
        raise ValueError(f"export copies the file of the backbone's class, and {kind.__qualname__} has none")
    source = Path(path).read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or "."] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            if name.split(".")[0] not in _EVERYWHERE:
                raise ValueError(
                    f"export copies the file of the backbone {kind.__qualname__}, which imports {name!r}: keep what it "
                    f"needs in that file, beside torch"
                )
    return source


def _readme(kind: str, ordered: OrderedCodes | None) -> str:
    what = {"image": "images", "table": "tables", "text": "texts"}[kind]
    code = _CODES[kind]
    if ordered is not None:
        code += _ORDERED if "load_file" in code else "from safetensors.torch import load_file\n" + _ORDERED
    lines = [f"# A frozen encoder of {what}", "", "Trained with LSDR, used without it:", "", "```python", code + "```"]
    if kind == "table":
        lines.append(_TABLE)
    if kind != "text":
        lines += ["", "Or with transformers: `AutoModel.from_pretrained(FOLDER, trust_remote_code=True)`."]
    return "\n".join(lines) + "\n"
