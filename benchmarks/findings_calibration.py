"""How often the findings of `lsdr inspect` are false alarms, and how often they find what was planted.

Clean models (clean_networks.py) are saved and inspected as a user would: published architectures at their start, small
networks trained here, their fine-tunes beside their bases, their moving averages beside their weights, and adapters.
Every finding in one is a false alarm. Then one fault at a time is planted in the trained ones, in a layer drawn at
random, and looked for. Thresholds were chosen on seeds below 200; the rates are of seeds from 200 on. The layers of a
model are not independent, so that the bounds per layer are too narrow; those per model are not.

Run `python benchmarks/findings_calibration.py [--seeds 12] [--first 200] [--keep FOLDER] [--write]`; with --keep the
networks are trained once, with --write the result replaces src/lsdr/inspection/calibration.json. About ten minutes on
two cores; appends to benchmarks/results/findings_calibration.jsonl.
"""

import argparse
import json
import logging
import tempfile
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from scipy.stats import beta

from clean_networks import TRAINED, State, random_networks, train, train_lora
from lsdr.inspection.findings.find import KINDS
from lsdr.inspection.inspect import Inspection, inspect
from lsdr.runs import append_record, environment, write_json

RESULTS = Path(__file__).parent / "results" / "findings_calibration.jsonl"
CALIBRATION = Path(__file__).parents[1] / "src" / "lsdr" / "inspection" / "calibration.json"
STEPS = 250
ADAPTED = ("residual MLP", "plain MLP", "ViT", "U-Net")


@dataclass(frozen=True)
class Case:
    """A file to inspect."""

    name: str
    """What it is, such as "trained ViT"."""
    seed: int
    path: Path
    base: Path | None = None


@dataclass
class Tally:
    """How many models and layers a rule was tried on, and on how many it raised an alarm."""

    models: int = 0
    model_alarms: int = 0
    trained_models: int = 0
    trained_alarms: int = 0
    layers: int = 0
    layer_alarms: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Counts, rates and their bounds."""
        return {
            "models": self.models,
            "model_alarms": self.model_alarms,
            "per_model": self.model_alarms / self.models if self.models else None,
            "per_model_upper": upper_bound(self.model_alarms, self.models),
            "trained_models": self.trained_models,
            "trained_alarms": self.trained_alarms,
            "trained_upper": upper_bound(self.trained_alarms, self.trained_models),
            "layers": self.layers,
            "layer_alarms": self.layer_alarms,
            "per_layer": self.layer_alarms / self.layers if self.layers else None,
            "per_layer_upper": upper_bound(self.layer_alarms, self.layers),
        }


def upper_bound(hits: int, trials: int, confidence: float = 0.95) -> float:
    """Upper confidence bound of a share (one-sided, Clopper & Pearson 1934); 3 / n or so where there was no hit."""
    return 1.0 if hits >= trials else float(beta.ppf(confidence, hits + 1, trials - hits))


# Which files a rule is tried on: an average or a fine-tune is no other model than the one that it was made from.
SORTS = {"ema_divergence": ("averaged",), "intruder_dimensions": ("fine-tuned",)}
SORTS |= {"lora_scale": ("LoRA",), "lora_rank_unused": ("LoRA",)}


def applies(kind: str, layer: Mapping[str, Any]) -> bool:
    """Whether a rule has anything to look at in a layer."""
    needs: dict[str, Callable[[Mapping[str, Any]], Any]] = {
        "qk_logit_scale": lambda row: row.get("heads"),
        "ema_divergence": lambda row: row.get("ema"),
        "intruder_dimensions": lambda row: (row.get("delta") or {}).get("top"),
        "lora_scale": lambda row: row.get("adapter"),
        "lora_rank_unused": lambda row: row.get("adapter"),
    }
    if kind in needs:
        return bool(needs[kind](layer))
    return not layer.get("adapter")


def tally(looks: Iterable[tuple[str, Inspection]]) -> dict[str, Tally]:
    """Count the alarms of every kind in clean models, given as (name of the case, inspection)."""
    found = {kind: Tally() for kind in KINDS}
    for name, inspection in looks:
        alarms: defaultdict[str, set[str]] = defaultdict(set)
        for finding in inspection.findings:
            alarms[finding.kind].add(finding.layer)
        for kind, each in found.items():
            layers = sum(applies(kind, layer) for layer in inspection.layers)
            if layers and name.startswith(SORTS.get(kind, ("trained", "initialised"))):
                each.models += 1
                each.layers += layers
                each.model_alarms += bool(alarms[kind])
                if not name.startswith("initialised"):
                    each.trained_models += 1
                    each.trained_alarms += bool(alarms[kind])
                each.layer_alarms += len(alarms[kind])
    return found


def summary(
    clean: Mapping[str, Tally], detection: Mapping[str, tuple[str, int, int]], models: Mapping[str, int]
) -> dict[str, Any]:
    """The content of calibration.json.

    Args:
        clean: By kind.
        detection: By planted fault: the kind that should be raised, how often it was, of how many.
        models: How many clean models of each sort there were.
    """
    return {
        "method": "seeds from 200 on, thresholds chosen on seeds below; bounds one-sided 95% (Clopper-Pearson); small "
        "networks trained on embedded data and published architectures at their start, none pretrained at scale",
        "models": dict(models),
        "findings": {kind: each.to_dict() for kind, each in clean.items()},
        "detection": {
            fault: {"finding": kind, "found": hits, "planted": trials, "rate": hits / trials if trials else None}
            for fault, (kind, hits, trials) in detection.items()
        },
    }


def save(module: torch.nn.Module, folder: Path, average: State | None = None) -> None:
    """Save a network where its configuration, if it has one, says how many heads it has."""
    folder.mkdir(parents=True, exist_ok=True)
    inner = getattr(module, getattr(module, "config_of", ""), module)
    if hasattr(inner, "save_pretrained") and average is None:
        inner.save_pretrained(folder)
        return
    state = {key: value.contiguous().clone() for key, value in module.state_dict().items()}
    if average is not None:
        state = {f"model.{key}": value for key, value in state.items()}
        state |= {f"ema.{key}": value.contiguous().clone() for key, value in average.items()}
    save_file(state, folder / "model.safetensors")


def make(name: str, seed: int, folder: Path) -> list[Case]:
    """One trained network and what belongs to it; read from `folder` where it is there already."""
    root = folder / name.replace(" ", "_") / str(seed)
    torch.set_num_threads(1)
    if not (root / "done").exists():
        torch.manual_seed(seed)
        model = TRAINED[name]()
        average = train(name, model, seed, STEPS)
        save(model, root / "trained")
        save(model, root / "average", average)
        weights = {key: value.clone() for key, value in model.state_dict().items()}
        # Every other fine-tune is as hard as the training was: long, and with the whole learning rate.
        steps, scale = (STEPS // 2, 1.0) if seed % 2 else (STEPS // 4, 0.1)
        train(name, model, seed + 1, steps, range(5, 10), scale, must_learn=False)
        save(model, root / "tuned")
        if name in ADAPTED:
            model.load_state_dict(weights)
            save_file(train_lora(name, model, seed, STEPS // 2), root / "lora.safetensors")
        (root / "done").touch()
    cases = [
        Case(f"trained {name}", seed, root / "trained"),
        Case(f"averaged {name}", seed, root / "average"),
        Case(f"fine-tuned {name}", seed, root / "tuned", root / "trained"),
    ]
    return cases + ([Case(f"LoRA of {name}", seed, root / "lora.safetensors")] if name in ADAPTED else [])


def start(name: str, seed: int, folder: Path) -> list[Case]:
    """One architecture as it is initialised."""
    root = folder / name / str(seed)
    if not root.exists():
        torch.manual_seed(seed)
        save(random_networks()[name](), root)
    return [Case(f"initialised {name}", seed, root)]


# Faults: (kind that should be raised, what sort of file, what is done to one weight or to all).
FAULTS: dict[str, tuple[str, str, Callable[[torch.Tensor], torch.Tensor]]] = {
    "a layer 30 times as large": ("spectral_norm_outlier", "trained", lambda w: 30 * w),
    "a spike of rank one, 30 times sigma": ("spectral_norm_outlier", "trained", lambda w: w + 30 * rank_one(w)),
    "a layer of rank one": ("stable_rank_collapse", "trained", lambda w: first_direction(w)),
    "half the outputs zero": (
        "dead_directions",
        "trained",
        lambda w: torch.cat([w[: len(w) // 2], 0 * w[len(w) // 2 :]]),
    ),
    "half the outputs repeated": ("duplicated_directions", "trained", lambda w: half_repeated(w)),
    "one weight NaN": (
        "nonfinite",
        "trained",
        lambda w: w.flatten().index_fill(0, torch.tensor([3]), torch.nan).view_as(w),
    ),
    "an average of other weights": ("ema_divergence", "averaged", lambda w: w.std() * torch.randn_like(w)),
    "a transplanted direction, 1.5 times sigma": ("intruder_dimensions", "fine-tuned", lambda w: w + 1.5 * rank_one(w)),
    "an adapter 30 times as large": ("lora_scale", "LoRA", lambda w: 30 * w),
}


def half_zero(weight: torch.Tensor) -> torch.Tensor:
    """The second half of the outputs without weights."""
    half = len(weight) // 2
    return torch.cat([weight[:half], torch.zeros_like(weight[half:])])


def half_repeated(weight: torch.Tensor) -> torch.Tensor:
    """The second half of the outputs the same as the first."""
    half = len(weight) // 2
    return torch.cat([weight[:half], weight[: len(weight) - half]])


def one_nan(weight: torch.Tensor) -> torch.Tensor:
    """One weight that is not a number."""
    return weight.flatten().index_fill(0, torch.tensor([3]), torch.nan).view_as(weight)


def rank_one(weight: torch.Tensor) -> torch.Tensor:
    """A random direction as large as the weight's largest."""
    matrix = weight.flatten(1)
    u, v = torch.randn(matrix.shape[0]), torch.randn(matrix.shape[1])
    return (torch.outer(u / u.norm(), v / v.norm()) * torch.linalg.matrix_norm(matrix, 2)).view_as(weight)


def first_direction(weight: torch.Tensor) -> torch.Tensor:
    """The weight's largest direction alone, as large as the weight."""
    u, _, v = torch.linalg.svd(weight.flatten(1), full_matrices=False)
    return (torch.outer(u[:, 0], v[0]) * weight.norm()).view_as(weight)


def plant(fault: str, case: Case, folder: Path) -> tuple[Path, str] | None:
    """Write the case's file with one fault in it; returns it and the layer, None where no layer is large enough."""
    kind, _, change = FAULTS[fault]
    if kind == "duplicated_directions" and "GPT-2" in case.name:  # stores inputs as rows
        return None
    source = case.path if case.path.is_file() else next(case.path.glob("*.safetensors"))
    state = load_file(source)
    generator = torch.Generator().manual_seed(case.seed)
    if kind == "lora_scale":
        names = [key for key in state if "lora_B" in key]
    else:
        prefix = "ema." if kind == "ema_divergence" else ""
        rows = [row for row in inspect(case.path).layers if row["kind"] in ("linear", "conv2d")]
        # In a few dimensions every direction is near another, and a rank of one is not far below: nothing to find.
        least = 32 if kind in ("intruder_dimensions", "stable_rank_collapse") else 16
        wide = [row for row in rows if row["sigma_max"] and min(row["matrix"]) >= least]
        names = [f"{prefix}{row['name'].removeprefix('model.') if prefix else row['name']}.weight" for row in wide]
        names = [name for name in names if name in state]
    if not names:
        return None
    name = names[int(torch.randint(len(names), (1,), generator=generator))]
    torch.manual_seed(case.seed)
    state[name] = change(state[name]).contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    if (case.path / "config.json").exists():
        (folder / "config.json").write_text((case.path / "config.json").read_text())
    save_file(state, folder / source.name)
    layer = name.removesuffix(".weight").removesuffix(".lora_B").removeprefix("base_model.model.")
    return (folder if case.path.is_dir() else folder / source.name), layer.removeprefix("ema.")


def detected(fault: str, case: Case) -> bool | None:
    """Whether the planted fault is found, in its layer and by its kind; None where it could not be planted."""
    with tempfile.TemporaryDirectory() as folder:
        planted = plant(fault, case, Path(folder) / "model")
        if planted is None:
            return None
        path, layer = planted
        found = inspect(path, base=case.base).findings
        return any(each.kind == FAULTS[fault][0] and each.layer.endswith(layer) for each in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--first", type=int, default=200)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    seeds = range(options.first, options.first + options.seeds)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        jobs = [(name, seed) for seed in seeds for name in TRAINED]
        with ProcessPoolExecutor() as pool:
            made = list(pool.map(make, *zip(*jobs, strict=True), [folder] * len(jobs)))
        cases = [case for each in made for case in each]
        cases += [case for name in random_networks() for seed in seeds for case in start(name, seed, folder)]
        clean = tally((case.name, look(case)) for case in cases)
        detection: dict[str, tuple[str, int, int]] = {}
        for fault, (kind, sort, _) in FAULTS.items():
            answers = [detected(fault, case) for case in cases if case.name.startswith(sort)]
            tried = [answer for answer in answers if answer is not None]
            detection[fault] = (kind, sum(tried), len(tried))
    found = summary(clean, detection, Counter(case.name for case in cases))
    report(found)
    if options.write:
        write_json(CALIBRATION, found)
        append_record(RESULTS, {**found, "environment": environment()})


def look(case: Case) -> Inspection:
    """Inspect a clean model and say what was found in it."""
    inspection = inspect(case.path, base=case.base)
    for finding in inspection.findings:
        print(f"  {case.name}, seed {case.seed}: [{finding.kind}] {finding.layer}: {finding.text}")
    return inspection


def report(found: Mapping[str, Any]) -> None:
    """Print the rates."""
    print(f"{'finding':<24}{'false alarms / models':>24}{'bound':>8}", end="")
    print(f"{'/ trained':>16}{'bound':>8}{'/ layers':>16}{'bound':>9}")
    for kind, each in found["findings"].items():
        print(
            f"{kind:<24}{each['model_alarms']:>16} / {each['models']:<5}{each['per_model_upper']:>8.1%}"
            f"{each['trained_alarms']:>10} / {each['trained_models']:<4}{each['trained_upper']:>7.1%}"
            f"{each['layer_alarms']:>9} / {each['layers']:<6}{each['per_layer_upper']:>7.2%}"
        )
    for fault, each in found["detection"].items():
        print(f"{fault:<44}{each['finding']:<24}{each['found']:>4} / {each['planted']}")
    print(json.dumps(found["models"]))


if __name__ == "__main__":
    main()
