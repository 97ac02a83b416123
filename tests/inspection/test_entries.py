import pytest
import torch

from lsdr.inspection import entries as module
from lsdr.inspection.duplicates import duplicated_rows
from lsdr.inspection.entries import dead, read_entries


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_norms_are_those_of_the_stored_numbers(dtype, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", 50)
    stored = noise(13, 7).to(dtype)
    found = read_entries(stored)
    torch.testing.assert_close(found.rows, stored.double().norm(dim=1))
    torch.testing.assert_close(found.columns, stored.double().norm(dim=0))
    assert found.frobenius == pytest.approx(stored.double().norm().item())
    assert found.nonfinite == 0


def test_squares_do_not_overflow_in_half_precision():
    assert read_entries(torch.full((2, 2), 60000.0, dtype=torch.float16)).frobenius == pytest.approx(120000, rel=1e-3)


def test_a_view_is_left_as_it_is():
    stored = noise(4, 5).double()
    before = stored.clone()
    read_entries(stored)
    assert torch.equal(stored, before)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_counted(bad, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", 20)
    stored = noise(20, 5)
    stored[3, 1] = stored[17, 4] = bad
    assert read_entries(stored).nonfinite == 2


def test_dead_is_relative_to_the_rest():
    norms = torch.tensor([1.0, 1.0, 2e-4, 0.0], dtype=torch.float64)
    assert dead(norms) == dead(1e-20 * norms) == 2
    assert dead(torch.zeros(4, dtype=torch.float64)) == 0
    assert dead(torch.tensor([1.0, 5e-3], dtype=torch.float64)) == 0


def duplicates(rows):
    return duplicated_rows(rows, rows.double().norm(dim=1))


def test_duplicates_of_either_sign_and_any_scale_are_found():
    rows = noise(300, 40)
    rows[200], rows[10], rows[299] = -3 * rows[7], 1e-3 * rows[7], rows[50] + 0.02 * noise(40)
    assert duplicates(rows) == [(10, 7), (200, 7), (299, 50)]


def test_near_is_not_the_same():
    rows = noise(2, 100)
    rows[1] = rows[0] + 0.06 * noise(100, seed=1)  # cosine about 0.998
    assert duplicates(rows) == []


def test_against_all_cosines():
    generator = torch.Generator().manual_seed(1)
    rows = noise(400, 12)
    source = torch.randint(0, 400, (150,), generator=generator)
    rows[torch.randperm(400, generator=generator)[:150]] = rows[source] + 0.008 * noise(150, 12, seed=2)
    unit = rows.double() / rows.double().norm(dim=1, keepdim=True)
    near = ((unit @ unit.T).abs() > 0.999).triu(1)
    found = duplicates(rows)
    for repeat, of in found:
        assert near[of, repeat]
    # Each row that is alone is not named; of each pair one is.
    assert {repeat for repeat, _ in found} <= set((near.any(0) | near.any(1)).nonzero().flatten().tolist())
    named = {row for pair in found for row in pair}
    assert all(i in named or j in named for i, j in near.nonzero().tolist())
    assert len(found) > 80


def test_pairs_far_apart_in_a_long_matrix_are_found():
    rows = noise(5000, 24)
    rows[2500:] = rows[:2500] + 0.005 * noise(2500, 24, seed=1)
    assert len(duplicates(rows)) == 2500


def test_a_crowd_costs_no_table_of_pairs():
    rows = noise(1, 16).repeat(5_000, 1)
    assert len(duplicates(rows)) == 4_999


def test_few_columns_and_zero_rows_say_nothing():
    assert duplicates(noise(50, 7)) is None
    assert duplicates(torch.zeros(5, 9)) == []
    assert duplicates(torch.cat([torch.zeros(3, 9), noise(2, 9)])) == []
