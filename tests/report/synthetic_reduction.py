"""What `lsdr reduce --json` writes, worked out here by plain least squares, one fit a step."""

import importlib.util
import math
from pathlib import Path

import numpy as np
from scipy import stats

_LEVELS = ("harbour", "hills", "suburb")


def found(rows: int = 400, folds: int = 5, **changes) -> dict:
    """The path of the example's houses, with a factor, stability frequencies and a split."""
    table = _houses(rows)
    names = [name for name in table if name != "price"]
    terms = {name: [name] for name in names} | {"location": [f"location[{level}]" for level in _LEVELS]}
    price = table["price"]
    fold = np.random.default_rng(0).integers(0, folds, rows)
    steps, orders = _path(table, names, terms, price), []
    errors = np.zeros((folds, len(steps)))
    for held in range(folds):
        inside = {name: values[fold != held] for name, values in table.items()}
        outside = {name: values[fold == held] for name, values in table.items()}
        for place, step in enumerate(_path(inside, names, terms, inside["price"])):
            kept = list(step["tvalues_of"])
            told = _design(outside, kept, terms) @ np.array(list(step["params"].values()))
            errors[held, place] = np.mean((outside["price"] - told) ** 2)
            orders.append(kept)
    for place, step in enumerate(steps):
        step["mse_heldout"] = float(errors[:, place].mean())
        step["mse_heldout_se"] = float(errors[:, place].std(ddof=1) / math.sqrt(folds))
        del step["tvalues_of"]
    chosen = next(step for step in steps if step["size"] == 8)
    features = [name for name in names if any(column in chosen["params"] for column in terms[name])]
    half = {name: values[: rows // 2] for name, values in table.items()}
    sizes = [step["size"] for step in steps]
    shares = [
        [np.mean([name in kept for kept in orders if len(kept) == size]) if size else 0.0 for name in names]
        for size in sizes
    ]
    return {
        "n": rows,
        "missing": 3,
        "method": "gram",
        "reason": "largest variance inflation 6.1: about 15 digits",
        "target": "price",
        "errors": "classical",
        "terms": terms,
        "forced": [],
        "aliased": [{"column": "rooms", "reason": "duplicate of bedrooms"}],
        "notes": ["3 of 403 rows have missing values and were left out."],
        "scales": _scales(table),
        "steps": steps,
        "chosen": {"size": 8, "features": features, "rule": "one_se", "why": "the smallest model within one SE"},
        "model": _inference(table, features, terms, price),
        "split": _inference(half, features, terms, half["price"]) | {"features": features, "rows": rows // 2},
        "frequencies": {"sizes": sizes, "terms": names, "values": shares},
    } | changes


def large(terms: int = 1000) -> dict:
    """A path of so many terms, with made-up numbers."""
    random = np.random.default_rng(0)
    names = [f"measurement_{place:04d}" for place in range(terms)]
    weights = random.standard_t(2, terms)
    order = np.argsort(np.abs(weights))
    steps = []
    for gone in range(terms + 1):
        kept = order[gone:]
        t = {names[place]: float(40 * weights[place]) for place in kept}
        error = 100 + 0.02 * len(kept) + 3 * float(np.sum(weights[order[:gone]] ** 2) ** 0.5)
        steps.append(
            {
                "size": terms - gone,
                "removed": names[order[gone]] if gone < terms else None,
                "t": t.get(names[order[gone]]) if gone < terms else None,
                "tvalues": t | {"Intercept": 9.0},
                "params": {name: value / 40 for name, value in t.items()} | {"Intercept": 1.0},
                "rss": 1e5 + 90.0 * gone, "aic": 5e4 + gone, "bic": 5e4 - gone,
                "mse_heldout": error, "mse_heldout_se": 1.0,
            }
        )  # fmt: skip
    features = [names[place] for place in sorted(order[-120:])]
    return {
        "n": 100_000,
        "method": "gram",
        "steps": steps,
        "chosen": {"size": 120, "features": features, "rule": "one_se"},
        "frequencies": {"sizes": list(range(terms, -1, -1)), "terms": names,
                        "values": np.tri(terms + 1, terms)[::-1].tolist()},
    }  # fmt: skip


def _scales(table):
    scales = {name: float(np.std(values)) for name, values in table.items() if name != "location"}
    return scales | {f"location[{level}]": float(np.std(table["location"] == level)) for level in _LEVELS}


def _houses(rows):
    path = Path(__file__).parents[2] / "examples" / "houses.py"
    specification = importlib.util.spec_from_file_location("houses", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.houses(rows)


def _design(table, kept, terms):
    columns = [np.ones(len(table["price"]))]
    for name in kept:
        if name == "location":
            columns += [(table[name] == level).astype(float) for level in _LEVELS]
        else:
            columns.append(table[name].astype(float))
    return np.column_stack(columns)


def _fit(table, kept, terms, y):
    design = _design(table, kept, terms)
    labels = ["Intercept", *(column for name in kept for column in terms[name])]
    inverse = np.linalg.inv(design.T @ design)
    b = inverse @ design.T @ y
    rss = float(np.sum((y - design @ b) ** 2))
    freedom = len(y) - len(b)
    se = np.sqrt(np.diag(inverse) * rss / freedom)
    return labels, b, se, inverse, rss, freedom


def _path(table, names, terms, y):
    kept, steps, n = list(names), [], len(y)
    while True:
        labels, b, se, inverse, rss, freedom = _fit(table, kept, terms, y)
        step = {
            "size": len(kept), "removed": None, "t": None, "F": None, "df": None, "p_value": None,
            "tvalues": dict(zip(labels, (b / se).tolist(), strict=True)),
            "params": dict(zip(labels, b.tolist(), strict=True)), "rss": rss,
            "aic": n * math.log(rss / n) + 2 * len(b), "bic": n * math.log(rss / n) + math.log(n) * len(b),
            "tvalues_of": list(kept),
        }  # fmt: skip
        steps.append(step)
        if not kept:
            return steps
        tests = {}
        for name in kept:
            at = [labels.index(column) for column in terms[name]]
            rise = b[at] @ np.linalg.solve(inverse[np.ix_(at, at)], b[at])
            statistic = rise / len(at) / (rss / freedom)
            tests[name] = (stats.f.logsf(statistic, len(at), freedom), statistic, len(at))
        weakest = max(tests, key=lambda name: (tests[name][0], kept.index(name)))
        log_p, statistic, df = tests[weakest]
        alone = step["tvalues"].get(weakest)
        step |= {"removed": weakest, "t": alone, "F": float(statistic), "df": df, "p_value": math.exp(log_p)}
        kept.remove(weakest)


def _inference(table, kept, terms, y):
    labels, b, se, _, _, freedom = _fit(table, kept, terms, y)
    width = stats.t.ppf(0.975, freedom) * se
    p = 2 * stats.t.sf(np.abs(b / se), freedom)
    columns = {"params": b, "bse": se, "tvalues": b / se, "pvalues": p}
    found = {name: dict(zip(labels, values.tolist(), strict=True)) for name, values in columns.items()}
    limits = zip(labels, (b - width).tolist(), (b + width).tolist(), strict=True)
    return found | {"conf_int": {name: [low, high] for name, low, high in limits}}
