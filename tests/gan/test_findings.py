"""The rules that turn numbers into an answer."""

import math

import pytest

from lsdr.gan import findings
from lsdr.gan.judge import judge


def modes(counts, **changes):
    """A mixture's counts with their divergence, and a perfect sampler's for 2500 samples of 25 modes."""
    hits, total = sum(counts), len(counts)
    shares = [amount / hits for amount in counts if amount] if hits else []
    return {
        "kind": "mode", "total": total, "counts": counts, "expected": [1 / total] * total,
        "captured": sum(amount > 0 for amount in counts), "high_quality": 0.985,
        "reverse_kl": math.log(total) + sum(share * math.log(share) for share in shares),
        "perfect": {
            "modes": {"mean": float(total), "sd": 0.0}, "reverse_kl": {"mean": 0.0049, "sd": 0.0014},
            "high_quality": {"mean": 0.989, "sd": 0.002},
        },
        **changes,
    }  # fmt: skip


def kinds(found):
    return [(each["severity"], each["kind"]) for each in found]


@pytest.mark.parametrize(
    ("counts", "changes", "expected"),
    [
        ([100] * 25, {}, []),
        ([100] * 13 + [0] * 12, {}, [("error", "mode_collapse")]),
        ([100] * 14 + [0] * 11, {}, [("warning", "missing_modes")]),
        ([100] * 24 + [0], {}, [("warning", "missing_modes")]),
        ([100] * 20 + [10] * 5, {}, [("warning", "uneven_modes")]),
        ([100] * 21 + [22] * 4, {}, [("note", "uneven_modes")]),
        ([2000] + [4] * 24, {}, [("error", "mode_collapse")]),
        ([100] * 25, {"high_quality": 0.3}, [("warning", "off_modes")]),
        ([100] * 25, {"high_quality": 0.9}, [("note", "off_modes")]),
        ([100] * 25, {"high_quality": 0.95}, []),
        ([100] * 25, {"spread": 0.3}, [("warning", "narrow_modes")]),
        ([100] * 25, {"spread": 0.6}, []),
        ([0] * 25, {"high_quality": 0.0}, [("error", "off_modes")]),
    ],
)
def test_modes_are_judged_beside_a_perfect_sampler(counts, changes, expected):
    assert kinds(findings.of_modes(modes(counts, **changes))) == expected


def test_what_chance_leaves_out_is_not_missing():
    few = modes([3] * 18 + [0] * 7, perfect={
        "modes": {"mean": 21.0, "sd": 1.0}, "reverse_kl": {"mean": 0.3, "sd": 0.1},
        "high_quality": {"mean": 0.989, "sd": 0.01},
    })  # fmt: skip
    assert findings.of_modes(few) == []
    assert kinds(findings.of_modes({**few, "captured": 16})) == [("warning", "missing_modes")]


def test_the_message_names_the_modes_that_hold_the_samples():
    told = findings.of_modes(modes([500, 480, 450, 20, 20, 10] + [0] * 19))[0]["message"]
    assert told == (
        "mode collapse: 3 of 25 modes hold 97 % of the samples that lie at one, and 6 are captured where a perfect "
        "sampler captures 25"
    )
    named = modes([100] * 24 + [0], names=[f"m{place}" for place in range(25)])
    assert findings.of_modes(named)[0]["message"] == "1 of 25 modes is missing: m24"


@pytest.mark.parametrize(
    ("found", "start"),
    [
        ([("error", "one_image"), ("error", "mode_collapse")], "Yes, this is mode collapse: one_image"),
        ([("error", "repeats")], "Yes, this is mode collapse: repeats"),
        ([("error", "mode_collapse"), ("error", "unrealistic")], "There is nothing to judge: unrealistic"),
        ([("error", "mode_collapse"), ("warning", "unrealistic")], "Yes, this is mode collapse: mode_collapse"),
        ([("error", "not_finite"), ("error", "mode_collapse")], "Yes, this is mode collapse"),
        ([("error", "not_finite")], "There is nothing to judge: not_finite"),
        ([("error", "not_measured")], "There is nothing to judge: not_measured"),
        ([("error", "off_modes")], "There is nothing to judge: off_modes"),
        ([("warning", "missing_modes"), ("warning", "memorises")], "In part: missing_modes"),
        ([("warning", "uneven_modes")], "In part: uneven_modes"),
        ([("note", "uneven_modes")], "No sign of mode collapse."),
        ([("error", "memorises")], "No sign of mode collapse. But it memorises"),
        ([("warning", "off_modes")], "No sign of mode collapse. But off_modes"),
        ([("warning", "discriminator_overfits"), ("note", "jumps")], "No sign of mode collapse."),
    ],
)
def test_one_answer(found, start):
    told = [findings.finding(severity, kind, kind) for severity, kind in found]
    assert findings.answer({"findings": findings.ranked(told)}).startswith(start)


def test_an_overfitting_discriminator_needs_a_gap_beyond_chance():
    assert findings.of_overfitting({"ratio": 0.9, "gap": 1.0, "error": 0.3}) == []
    assert findings.of_overfitting({"ratio": 0.4, "gap": 1.0, "error": 0.01}) == []
    assert kinds(findings.of_overfitting({"ratio": 0.9, "gap": 1.0, "error": 0.1})) == [
        ("warning", "discriminator_overfits")
    ]


def test_every_kind_is_listed():
    found = [
        *findings.of_finiteness(1, 2), *findings.of_repeats(1, 9, 9), *findings.of_repeats(2, 90, 90),
        *findings.of_memorisation(1.0, 0.0, 9), *findings.of_interpolation(0.9, 32),
        *findings.of_layers([{"severity": "error", "kind": "zero_layer", "text": "0: zero"}]),
        findings.not_measured("layers", "none"),
        *findings.of_fidelity({"precision": 0, "coverage": 0, "reference": {"precision": 1, "coverage": 1}}),
    ]  # fmt: skip
    assert {each["kind"] for each in found} <= set(findings.KINDS)
    assert len(found) == 9
    assert [each["severity"] for each in findings.ranked(found)] == sorted(
        (each["severity"] for each in found), key=("error", "warning", "note").index
    )


PERFECT = {"precision": {"mean": 0.9, "sd": None}, "coverage": {"mean": 0.9, "sd": None}}


@pytest.mark.parametrize(
    ("measures", "curves", "kind"),
    [
        ({"precision": 0.9, "coverage": 0.8}, {"perfect": PERFECT}, None),
        ({"precision": 0.9, "coverage": 0.1}, {"perfect": PERFECT}, "low_coverage"),
        ({"copies": 0.8}, {}, "memorises"),
        ({"copies": 0.05}, {}, None),
        ({"diverged": 1.0, "fid": None}, {}, "not_finite"),
        ({"diverged": 1.0, "largest_logit": 2e4, "modes": 8.0}, {}, "not_finite"),
        ({"diverged": 1.0, "copies": 0.0}, {}, None),
        ({"diverged": 1.0, "step_seconds": 0.1}, {}, "not_measured"),
    ],
)
def test_a_runs_own_files_are_judged_alike(measures, curves, kind):
    told = judge(measures, curves, {})
    assert [each["kind"] for each in told["findings"]] == ([kind] if kind else [])
    assert told["modes"] == {}


def test_a_runs_discriminator_is_judged_by_its_histograms():
    edges = [float(edge) for edge in range(11)]
    apart = {"edges": edges, "train": [0] * 8 + [50, 50], "heldout": [50, 50] + [0] * 8}
    measures = {"overfitting": 0.9, "heldout_gap": 8.0, "copies": 0.0}
    assert [each["kind"] for each in judge(measures, {"logits": apart}, {})["findings"]] == ["discriminator_overfits"]
    few = {"edges": edges, "train": [1] + [0] * 8 + [1], "heldout": [1] + [0] * 8 + [1]}
    assert judge(measures, {"logits": few}, {})["findings"] == []
    assert judge(measures, {}, {})["findings"] == []


@pytest.mark.parametrize("perfect", [{}, {"precision": {"mean": 0.8}, "coverage": {"mean": 0.9}}])
def test_of_pure_noise_there_is_nothing_to_judge(perfect):
    noise = {"precision": 0.0, "coverage": 0.0}
    assert judge(noise, {"perfect": perfect}, {})["answer"].startswith("There is nothing to judge")


def test_classes_found_in_noise_are_no_missing_classes():
    known = {"modes": {"mean": 4.0, "sd": 0.0}, "reverse_kl": {"mean": 0.003, "sd": 0.002}}
    about = {"modes": {"counts": [500, 0, 0, 0]}, "perfect": known}
    collapsed = {"modes": 1.0, "reverse_kl": math.log(4), "precision": 0.7, "coverage": 0.2}
    told = judge(collapsed, about, {"classes": 4})
    assert told["answer"].startswith("Yes, this is mode collapse")
    noise = judge({**collapsed, "precision": 0.0, "coverage": 0.0}, about, {"classes": 4})
    assert noise["answer"].startswith("There is nothing to judge")
