"""Which entries of a checkpoint are layers, what each is to be compared with, and in which order they come."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from lsdr.inspection.heads import key_of
from lsdr.layers.checkpoint.checkpoint import Checkpoint
from lsdr.layers.layout import LayerFacts, describe

_MEASURED = ("linear", "embedding", "conv1d", "conv2d", "conv3d", "experts", "table", "parameter")
_REASONS = {
    "norm": "one number a channel: no spectrum",
    "bias": "one number a channel: no spectrum",
    "vector": "one number a channel: no spectrum",
    "statistic": "running statistics, not weights",
    "quantized": "stored as integers, whose scales are elsewhere: no values to measure",
    "buffer": "integers or booleans, not weights",
}
_FIRST = re.compile(
    r"conv_in|patch_embed|(time|class|add|pos|label|context|x)_?(proj|embed)\w*|embeddings?|wte|wpe|stem"
)
_LAST = re.compile(r"conv_out|conv_norm_out|lm_head|head|classifier|final\w*|proj_out|norm_out|out|fc")
_STAGES = (("down", "input_blocks", "encoder"), ("mid", "middle_block"), ("up", "output_blocks", "decoder"))


@dataclass(frozen=True)
class Task:
    """One entry to measure."""

    name: str
    """What the user sees."""
    stored: str
    """What the checkpoint calls it."""
    facts: LayerFacts
    nbytes: int
    expert: int | None = None
    """Which matrix of a stack."""
    key: str | None = None
    """The key projection that belongs to this query projection, as stored."""
    average: str | None = None
    """The averaged copy of this entry (EMA), as stored."""
    base: str | None = None
    """The entry of the base checkpoint, as stored there."""
    component: str = ""
    """The model in a pipeline's folder that this entry belongs to."""

    @property
    def is_vector(self) -> bool:
        """Whether only its numbers are checked: it has no spectrum."""
        return self.facts.kind not in _MEASURED


def short_names(plain: Collection[str]) -> dict[str, str]:
    """Names without `.weight`, where no other entry has that name."""
    taken = set(plain)
    shortened = {name: name.removesuffix(".weight") for name in plain}
    return {name: short if short == name or short not in taken else name for name, short in shortened.items()}


def config_of(checkpoint: Checkpoint, name: str) -> tuple[str, Mapping[str, Any] | None]:
    """The component that an entry belongs to (empty if the checkpoint is one model) and its configuration."""
    component = name.partition(".")[0]
    if component and component in checkpoint.config:
        return component, checkpoint.config[component]
    return "", checkpoint.config.get("")


def plan(
    checkpoint: Checkpoint, plain: Mapping[str, str], averages: Mapping[str, str], layers: str
) -> tuple[list[Task], list[dict[str, str]]]:
    """What to measure, in the order of depth, and what is passed over and why.

    Args:
        checkpoint: The file.
        plain: Plain name to stored name of its entries.
        averages: Stored name to stored name of its average.
        layers: Glob that names must match.
    """
    tasks: list[Task] = []
    skipped: list[dict[str, str]] = []
    shorts = short_names(plain)
    for name in _in_order(checkpoint, plain):
        short, stored = shorts[name], plain[name]
        entry = checkpoint.entries[stored]
        if not (fnmatchcase(short, layers) or fnmatchcase(name, layers)):
            continue
        component, config = config_of(checkpoint, name)
        inside = name.removeprefix(f"{component}.") if component else name
        facts = describe(inside, entry.shape, config, entry.dtype)
        reason = _REASONS.get(facts.kind)
        if entry.dtype.is_complex:
            reason = "complex numbers"
        elif 0 in entry.shape:
            reason = "holds no values"
        if reason:
            skipped.append({"name": short, "reason": reason})
        if reason and (0 in entry.shape or not entry.dtype.is_floating_point):
            continue
        key = key_of(name, plain) if facts.heads else None
        task = Task(
            short,
            stored,
            facts,
            entry.nbytes,
            key=plain[key] if key else None,
            average=averages.get(stored),
            component=component,
        )
        if facts.kind == "experts" and len(entry.shape) == 3:
            count = entry.shape[0]
            tasks += [
                Task(f"{short}[{each}]", stored, facts, entry.nbytes // count, expert=each, component=component)
                for each in range(count)
            ]
        else:
            tasks.append(task)
    return tasks, skipped


def _in_order(checkpoint: Checkpoint, plain: Mapping[str, str]) -> list[str]:
    """Names by depth: as stored where the file keeps the model's order, else as far as names tell."""
    names = list(plain)
    if not names or checkpoint.entries[plain[names[0]]].file.suffix != ".safetensors":
        return names
    components = {component: place for place, component in enumerate(checkpoint.config)}
    of = {name: config_of(checkpoint, name)[0] for name in names}
    return sorted(names, key=lambda name: (components.get(of[name], 0), depth(name.removeprefix(f"{of[name]}."))))


def depth(name: str) -> tuple[Any, ...]:
    """A key that sorts names as a model is run, as far as names tell: safetensors files are sorted by letters.

    Example:
        >>> sorted(["up_blocks.0.w", "conv_in.w", "down_blocks.10.w", "mid_block.w", "down_blocks.2.w"], key=depth)
        ['conv_in.w', 'down_blocks.2.w', 'down_blocks.10.w', 'mid_block.w', 'up_blocks.0.w']
    """
    stages = (_stage(part) for part in name.split(".")[:3])
    stage = next((stage for stage in stages if stage is not None), 2.5)
    pieces = [
        (0, int(piece), "") if piece.isdigit() else (1, 0, piece) for piece in re.split(r"([0-9]+)", name) if piece
    ]
    return stage, pieces


def _stage(part: str) -> float | None:
    for place, names in enumerate(_STAGES):
        if part.startswith(names):
            return 1.0 + place
    if _FIRST.fullmatch(part):
        return 0.0
    return 4.0 if _LAST.fullmatch(part) else None
