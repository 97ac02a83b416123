"""Names of adapter tensors, in all the spellings that trainers use."""

import re
from collections import defaultdict
from collections.abc import Iterable

# Role of a tensor and how names end that play it; the adapter's name in a peft model may stand in between.
_ENDINGS = {
    "down": r"(?:\.lora_down|\.lora_A(?P<a>\.[^.]+)?|\.lora\.down|\.lora_linear_layer\.down)\.weight",
    "up": r"(?:\.lora_up|\.lora_B(?P<b>\.[^.]+)?|\.lora\.up|\.lora_linear_layer\.up)\.weight",
    "mid": r"\.lora_mid\.weight",
    "embedding_down": r"\.lora_embedding_A(?P<c>\.[^.]+)?",
    "embedding_up": r"\.lora_embedding_B(?P<d>\.[^.]+)?",
    "alpha": r"\.alpha",
    "magnitude": r"\.dora_scale|\.lora_magnitude_vector(?P<e>\.[^.]+)??(?:\.weight)?",
    "bias": r"\.diff_b|\.lora_B(?P<f>\.[^.]+)?\.bias",
    "diff": r"\.diff",
    "adalora": r"\.lora_E(?P<g>\.[^.]+)?",
} | {
    part: rf"\.{part}(?P<{part}_name>\.[^.]+)?"
    for part in (
        *("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"),
        *("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"),
    )
}
_PATTERNS = {role: re.compile(f"(?P<target>.+?)(?:{ending})") for role, ending in _ENDINGS.items()}
# Attention processors of diffusers before 0.20.
_OLD = re.compile(
    r"(?P<target>.+?)(?P<processor>\.processor)?\.to_(?P<which>q|k|v|out)_lora\.(?P<role>down|up)\.weight"
)
# A target counts where the tensors of one of these are there; "alpha" alone is a parameter of something else.
COMPLETE: dict[str, tuple[set[str], ...]] = {
    "lora": ({"down", "up"}, {"embedding_down", "embedding_up"}),
    "loha": ({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"},),
    "lokr": tuple(
        first | second
        for first in ({"lokr_w1"}, {"lokr_w1_a", "lokr_w1_b"})
        for second in ({"lokr_w2"}, {"lokr_w2_a", "lokr_w2_b"})
    ),
    "full": ({"diff"},),
}
# Most names of most checkpoints have nothing of this.
_HINT = re.compile(r"lora|hada_|lokr_|alpha|dora_scale|\.diff")
_TELLING = {role for sets in COMPLETE.values() for each in sets for role in each} - {"diff"}


def group_names(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Names by target layer and role: {"unet.mid_block.attentions.0.to_q": {"down": name, "up": name, ...}}.

    Targets are written as in the file, less "base_model.model." and ".default". Several adapters for one layer are told
    apart: "<layer> (<adapter>)". Names that are of no adapter are left out.
    """
    found: defaultdict[str, dict[str, str]] = defaultdict(dict)
    adapters: defaultdict[str, set[str]] = defaultdict(set)
    split = {name: parsed for name in names if (parsed := _split(name))}
    for target, _, adapter in split.values():
        adapters[target].add(adapter)
    for name, (target, role, adapter) in split.items():
        several = len(adapters[target] - {""}) > 1 and adapter
        found[f"{target} ({adapter})" if several else target][role] = name
    return {target: roles for target, roles in found.items() if _is_adapter(target, roles)}


def _is_adapter(target: str, roles: dict[str, str]) -> bool:
    if target.startswith(("lora_", "lycoris_")):
        return bool(roles.keys() & (_TELLING | {"diff"}))
    return bool(roles.keys() & _TELLING)


def _split(name: str) -> tuple[str, str, str] | None:
    """(Target, role, name of the adapter) of a tensor's name."""
    if not _HINT.search(name):
        return None
    old = _OLD.fullmatch(name)
    if old:
        which = old["which"]
        if old["processor"]:
            return f"{old['target']}.to_{'out.0' if which == 'out' else which}", old["role"], ""
        return f"{old['target']}.{which}_proj", old["role"], ""  # text encoders
    for role, pattern in _PATTERNS.items():
        match = pattern.fullmatch(name)
        if match:
            adapter = next((value for key, value in match.groupdict().items() if key != "target" and value), "")
            return match["target"].removeprefix("base_model.model."), role, adapter.removeprefix(".")
    return None
