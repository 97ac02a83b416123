"""Conditionings of any shape: tensors, mappings of them, and what lies between."""

from collections import namedtuple

import pytest
import torch

from lsdr.probes.conditioning import check_conditioning, each_tensor, joined, rows_of, tensors_of, with_tensors
from lsdr.probes.operator_spectrum import operator_asymmetry, operator_density, operator_spectrum, operator_trace

Pair = namedtuple("Pair", "one other")


def nested(count=3):
    return {
        "text": torch.arange(2.0 * count).view(count, 2),
        "added": {"ids": torch.arange(count), "parts": [torch.ones(count), Pair(torch.zeros(count, 1), None)]},
        "scale": 0.5,
    }


def test_shape_and_order_are_kept():
    given = nested()
    again = with_tensors(given, tensors_of(given))
    assert list(again) == list(given)
    assert isinstance(again["added"]["parts"][1], Pair)
    assert again["scale"] == 0.5
    assert all(a is b for a, b in zip(tensors_of(again), tensors_of(given), strict=True))
    assert [tuple(each.shape) for each in tensors_of(given)] == [(3, 2), (3,), (3,), (3, 1)]
    assert tensors_of(None) == []
    assert each_tensor(lambda name, each: each, None) is None


def test_names_say_where():
    names = []
    each_tensor(lambda name, each: names.append(name) or each, nested())
    assert names == [
        "conditioning['text']",
        "conditioning['added']['ids']",
        "conditioning['added']['parts'][0]",
        "conditioning['added']['parts'][1][0]",
    ]


def test_rows_are_taken_everywhere():
    few = rows_of(nested(), torch.tensor([2, 0, 2]))
    assert few["text"].tolist() == [[4, 5], [0, 1], [4, 5]]
    assert few["added"]["ids"].tolist() == [2, 0, 2]
    assert rows_of(nested(), slice(1, None))["added"]["parts"][1].one.shape == (2, 1)
    assert rows_of(None, slice(1)) is None


@pytest.mark.parametrize("wrong", [torch.zeros(2, 5), torch.tensor(1.0)])
def test_what_has_not_one_entry_per_image_is_named(wrong):
    given = {"text": torch.zeros(3, 5), "added": {"ids": wrong}}
    with pytest.raises(ValueError, match=r"conditioning\['added'\]\['ids'\] has shape .* for 3 images"):
        check_conditioning(given, 3)
    check_conditioning(nested(), 3)
    check_conditioning(None, 3)


def test_joined_rows_follow_each_other():
    both = joined(nested(), nested())
    assert all(len(each) == 6 for each in tensors_of(both))
    assert both["added"]["ids"].tolist() == [0, 1, 2, 0, 1, 2]
    assert isinstance(both["added"]["parts"][1], Pair)
    assert both["scale"] == 0.5
    half = joined({"text": torch.zeros(1, dtype=torch.bfloat16)}, {"text": torch.zeros(1)})
    assert half["text"].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("other", "match"),
    [
        ({"prompt": torch.zeros(1, 5)}, "other names"),
        ({"text": torch.zeros(1, 6)}, "do not go together"),
        ({"text": None}, "do not go together"),
        (torch.zeros(1, 5), "do not go together"),
        (None, "do not go together"),
    ],
)
def test_conditionings_of_other_kinds_are_not_joined(other, match):
    with pytest.raises(ValueError, match=match):
        joined({"text": torch.zeros(1, 5)}, other)


def scaled(x, sigma, conditioning):
    """D(x) = s x with s and the level from the conditioning of each image."""
    return x * conditioning["scale"].view(-1, 1, 1, 1) + conditioning["added"]["shift"].view(-1, 1, 1, 1)


GIVEN = {"scale": torch.tensor([0.2, 0.9]), "added": {"shift": torch.tensor([3.0, -1.0])}}


def test_every_image_is_measured_under_its_own_conditioning():
    noisy = torch.randn(2, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    common = {"conditioning": GIVEN, "generator": torch.Generator().manual_seed(0), "batch": 3}
    found = operator_spectrum(scaled, noisy, 1.0, k=2, **common)
    assert [round(float(each.values[0]), 5) for each in found] == [0.2, 0.9]
    singular = operator_spectrum(scaled, noisy, 1.0, 0.5, k=1, of="singular_values", **common)
    assert [round(float(each.values[0]), 5) for each in singular] == [0.6, 0.95]
    assert operator_trace(scaled, noisy, 1.0, **common).trace.tolist() == pytest.approx([0.2, 0.9], abs=1e-5)
    assert operator_asymmetry(scaled, noisy, 1.0, **common).tolist() == pytest.approx([0, 0], abs=1e-5)
    density = operator_density(scaled, noisy, 1.0, steps=2, **common)
    assert [float(each.mean()[0]) for each in density] == pytest.approx([0.2, 0.9], abs=1e-5)


def test_a_conditioning_that_is_short_is_refused():
    with pytest.raises(ValueError, match=r"conditioning\['scale'\] has shape \(1,\) for 2 images"):
        operator_spectrum(scaled, torch.randn(2, 1, 3, 3), 1.0, conditioning={"scale": torch.ones(1)})
