"""Which file of a folder holds its weights."""

import re
from dataclasses import dataclass
from pathlib import Path

# Names that libraries save weights under, the most telling first.
_KNOWN = (
    "diffusion_pytorch_model",
    "model",
    "adapter_model",
    "pytorch_lora_weights",
    "pytorch_model",
    "open_clip_model",
    "open_clip_pytorch_model",
)
_ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
# Files of training scripts with the endings of weights.
_NO_WEIGHTS = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state|random_states|sampler|dataloader)", re.I)
_SHARD = re.compile(r"-\d{5}-of-\d{5}")


@dataclass(frozen=True)
class Choice:
    """The file or index to read, and those of the same weights that are passed over."""

    file: Path
    left: tuple[Path, ...]

    def notes(self) -> list[str]:
        """Say that there was a choice."""
        if not self.left:
            return []
        return [f"read {self.file.name}, passed over {', '.join(path.name for path in self.left)}"]


def choose_weights(folder: Path) -> Choice | None:
    """Find the weights in a folder, or None where there are none.

    Of the same weights several times, full precision goes before a variant ("fp16", "non_ema"), safetensors before a
    file of torch, one file before shards.

    Raises:
        ValueError: If there are shards without an index, or several files and none has a name that libraries give.
    """
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    indices = [path for path in files if ".index." in path.name and path.suffix == ".json"]
    weights = [path for path in files if path.suffix in _ENDINGS and not _NO_WEIGHTS.match(path.name)]
    shards = [path for path in weights if _SHARD.search(path.name)]
    candidates = indices + [path for path in weights if path not in shards]
    if shards and not indices and not any(is_known(path) for path in candidates):
        raise ValueError(
            f"{folder} holds shards ({shards[0].name}, ...) and no *.index.json that says what is in them; "
            "download it too"
        )
    known = [path for path in candidates if is_known(path)]
    if not known and len(candidates) > 1:
        raise ValueError(
            f"{folder} holds {len(candidates)} files of weights, {', '.join(path.name for path in candidates[:5])}"
            f"{' ...' if len(candidates) > 5 else ''}; give one of them"
        )
    ranked = sorted(known or candidates, key=_rank)
    return Choice(ranked[0], tuple(ranked[1:])) if ranked else None


def is_known(path: Path) -> bool:
    """Whether a file has a name that libraries save weights under."""
    return _stem(path) in _KNOWN


def _stem(path: Path) -> str:
    return path.name.split(".")[0]


def _rank(path: Path) -> tuple[bool, bool, int, bool, str]:
    words = path.name.split(".")[1:]
    index = words[-1] == "json"
    variant = [word for word in words if f".{word}" not in _ENDINGS and word not in ("index", "json")]
    known = _KNOWN.index(_stem(path)) if is_known(path) else len(_KNOWN)
    return bool(variant), "safetensors" not in words, known, index, path.name
