"""What an entry of a state dict is, from its name and shape alone, and what of it cannot be known."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from lsdr.layers.fused import FusedLayout, fused_layout
from lsdr.layers.heads import attention_role, head_count

Kind = Literal[
    "linear",
    "embedding",
    "conv1d",
    "conv2d",
    "conv3d",
    "experts",
    "table",
    "parameter",
    "norm",
    "bias",
    "vector",
    "statistic",
    "quantized",
    "buffer",
]
"""What an entry is:

- "linear", "embedding", "conv1d", "conv2d", "conv3d": the weight of such a layer;
- "experts": linear layers of a mixture stacked in a 3-d tensor;
- "table": learned positions, tokens or queries, rows that are added or attended to rather than multiplied with;
- "parameter": another tensor of two dimensions or more, used in a way that its name does not tell;
- "norm", "bias", "vector": one number a channel;
- "statistic": running mean and variance; "quantized": a matrix in integers; "buffer": other integers and booleans.
"""

_LINEAR: tuple[Kind, ...] = ("linear", "embedding", "conv1d", "conv2d", "conv3d")
_CONVOLUTIONS: dict[int, Kind] = {3: "conv1d", 4: "conv2d", 5: "conv3d"}
_SUFFIX = re.compile(
    r"\.(weight|weight_v|weight_orig|parametrizations\.weight\.(original|original1))$|^(weight)$|_proj_weight$|in_proj_weight$"
)
_EMBEDDING = re.compile(
    r"(?!(patch|time|timestep|context|image|img|x|cond|encoder_hid)_)(\w+_)?(embed|embedding|embeddings|emb)"
    r"|embed_(tokens|positions|in)|embedding_table|wte|wpe|shared|relative_attention_bias|codebook|tokens_embed"
)
_TABLE = re.compile(r"embed|pos_|position|token|table|latents|queries|query|codebook|anchor|register", re.IGNORECASE)
_NORM = re.compile(r"norm|(^|_)ln(_|\d|$)|gamma|layer_?scale|scale|alpha|weight_g|original0", re.IGNORECASE)
_MATRIX = re.compile(r"proj|projection|kernel|matrix|lora", re.IGNORECASE)
_CONV1D = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer")  # model types whose linear layers are `Conv1D`


@dataclass(frozen=True)
class LayerFacts:
    """What is known of an entry of a state dict.

    Attributes:
        kind: What it is; see `Kind`.
        operator_kind: "matrix" where the entry is the layer's whole operator, "reshape" where it is the kernel of a
            convolution, whose norm is then only bracketed, None where it is not the matrix of a layer.
        matrix_shape: (rows, columns) as a matrix, outputs first; None of less than two dimensions.
        heads: Number of heads, of an attention projection whose configuration says so.
        transposed: Whether a linear layer is stored as (in, out), as transformers' `Conv1D` does.
        fused: How a fused projection is divided.
        unknown: What the state dict does not say and the operator depends on: "stride", "padding", "dilation",
            "groups" and "direction" (convolution or its transpose) of a convolution's kernel; "orientation" of a square
            matrix that may be stored either way; "parametrization" of a weight that is computed from the entry;
            "use" of a tensor whose name tells nothing.
        hints: What the name suggests of the unknown. It is no more than a suggestion.
    """

    kind: Kind
    operator_kind: Literal["matrix", "reshape"] | None = None
    matrix_shape: tuple[int, int] | None = None
    heads: int | None = None
    transposed: bool = False
    fused: FusedLayout | None = None
    unknown: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()


def describe(
    name: str,
    shape: Sequence[int],
    config: Mapping[str, Any] | None = None,
    dtype: torch.dtype | str | None = None,
) -> LayerFacts:
    """Say what an entry of a state dict is, and what cannot be known of it; no entry is passed over.

    Args:
        name: The entry's name.
        shape: Its shape.
        config: Configuration of the model (diffusers or transformers), for heads and for storage.
        dtype: Its type, or the type's name in a safetensors header ("F16", "I64"), to tell integers apart.

    Example:
        >>> describe("down_blocks.0.downsamplers.0.conv.weight", (320, 320, 3, 3)).hints
        ('downsampling: stride 2',)
        >>> describe("h.0.attn.c_attn.weight", (768, 2304)).matrix_shape
        (2304, 768)
    """
    shape = tuple(shape)
    leaf = name.rsplit(".", 1)[-1]
    if re.fullmatch(r"running_(mean|var)|num_batches_tracked", leaf):
        return LayerFacts("statistic")
    if _is_integer(dtype):
        quantized = len(shape) >= 2 and leaf in ("weight", "qweight")
        return LayerFacts("quantized", unknown=("scales",)) if quantized else LayerFacts("buffer")
    if sum(size != 1 for size in shape) <= 1 and (len(shape) < 2 or _NORM.search(_layer(name)) or _NORM.search(leaf)):
        return LayerFacts(_one_dimensional(leaf))
    if _SUFFIX.search(name) is None:
        return _bare(name, leaf, shape)
    parametrized = ("parametrization",) if re.search(r"parametrizations\.|weight_(v|orig)$", name) else ()
    if len(shape) == 2:
        return _matrix(name, (shape[0], shape[1]), config, parametrized)
    matrix_shape = (shape[0], math.prod(shape[1:]))
    if len(shape) not in _CONVOLUTIONS or "experts" in name:
        return LayerFacts("experts", "matrix", (shape[-2], shape[-1]), unknown=("orientation", *parametrized))
    kernel = shape[2:]
    # One tap makes stride, padding, dilation and direction matter nothing: they leave out or add rows of zeros.
    unknown = ("groups",) if math.prod(kernel) == 1 else ("stride", "padding", "dilation", "groups", "direction")
    return LayerFacts(
        _CONVOLUTIONS[len(shape)],
        "matrix" if math.prod(kernel) == 1 else "reshape",
        matrix_shape,
        head_count(name, config, shape),
        fused=fused_layout(name, shape, config),
        unknown=(*unknown, *parametrized),
        hints=_hints(name, shape),
    )


def is_layer(facts: LayerFacts) -> bool:
    """Whether the entry is the weight of a layer that has a spectrum of its own."""
    return facts.kind in _LINEAR


def _matrix(
    name: str, shape: tuple[int, int], config: Mapping[str, Any] | None, unknown: tuple[str, ...]
) -> LayerFacts:
    """An entry of two dimensions with a layer's name."""
    if _EMBEDDING.fullmatch(_layer(name)):
        return LayerFacts("embedding", "matrix", shape, unknown=unknown)
    transposed = _is_transposed(name, shape, config)
    if transposed is None:
        unknown, transposed = ("orientation", *unknown), False
    return LayerFacts(
        "linear",
        "matrix",
        (shape[1], shape[0]) if transposed else shape,
        head_count(name, config, (shape[1], shape[0]) if transposed else shape),
        transposed,
        fused_layout(name, shape, config),
        unknown,
    )


def _is_transposed(name: str, shape: tuple[int, int], config: Mapping[str, Any] | None) -> bool | None:
    """Whether a matrix is stored as (in, out); None if it is square and may be either.

    `c_attn`, `c_fc` and `c_proj` are names of GPT-2's `Conv1D` and of `Linear` layers in code after it (nanoGPT,
    OpenAI's CLIP); the wider side tells.
    """
    layer, model = _layer(name), (config or {}).get("model_type")
    if layer not in ("c_attn", "c_fc", "c_proj", "q_attn"):
        return False
    if model is not None:
        return model in _CONV1D
    rows, columns = shape
    if rows == columns:
        return None
    return rows > columns if layer == "c_proj" else columns > rows


def _bare(name: str, leaf: str, shape: tuple[int, ...]) -> LayerFacts:
    """A parameter of its own, not a layer's weight."""
    matrix_shape = (math.prod(shape[:-1]), shape[-1])
    if "experts" in name and len(shape) == 3:
        return LayerFacts("experts", "matrix", (shape[1], shape[2]), unknown=("orientation",))
    if _TABLE.search(leaf):
        return LayerFacts("table", None, matrix_shape)
    if len(shape) == 2 and _MATRIX.search(leaf):
        return LayerFacts("linear", "matrix", matrix_shape, unknown=("orientation",))
    return LayerFacts("parameter", None, matrix_shape, unknown=("use",))


def _one_dimensional(leaf: str) -> Kind:
    if re.search(r"bias|beta$", leaf):
        return "bias"
    if _NORM.search(leaf) or leaf in ("weight", "g"):
        return "norm"
    return "vector"


def _hints(name: str, shape: tuple[int, ...]) -> tuple[str, ...]:
    hints = []
    if re.search(r"down_?sampl", name):
        hints.append("downsampling: stride 2")
    if re.search(r"conv_?transpose|deconv|transposed?_conv", name, re.IGNORECASE):
        hints.append("transposed convolution: stored as (in, out / groups, kernel)")
    elif re.search(r"(^|\.|_)up_?sampl", name):
        hints.append("upsampling: may be transposed, or an ordinary convolution after interpolation")
    if shape[1] == 1 and shape[0] > 1:
        hints.append("one input channel a group: may be depthwise")
    if re.search(r"patch_embed", name) or (shape[2] >= 8 and len(set(shape[2:])) == 1):
        hints.append("patches: stride equal to the kernel")
    if attention_role(name) is not None:
        hints.append("attention projection: stride 1")
    return tuple(hints)


def _layer(name: str) -> str:
    """The layer's own name: the last component before that of the parameter."""
    path = re.sub(r"\.(weight\w*|bias\w*|parametrizations\.weight\.\w+)$|_weight$", "", name).split(".")
    return path[-1]


def _is_integer(dtype: torch.dtype | str | None) -> bool:
    if dtype is None:
        return False
    if isinstance(dtype, torch.dtype):
        return not dtype.is_floating_point and not dtype.is_complex
    return re.match(r"(torch\.)?(u?int|I\d|U\d|bool)", dtype, re.IGNORECASE) is not None
