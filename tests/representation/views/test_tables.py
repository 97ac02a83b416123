import pytest
import torch

from lsdr.representation.data.representation_data import examples
from lsdr.representation.views.open import open_views, single

CPU = torch.device("cpu")


def changed(data, spec, seed=0, count=40):
    view = open_views(spec, data)
    inputs, _, _ = examples(data.train, data.fields, count, CPU)
    return inputs, view(inputs, view.draws(count, torch.Generator().manual_seed(seed)))


def cells(inputs):
    """Every cell as (value, whether it is missing), of numbers and categories side by side: (n, p + q, 2)."""
    values = torch.cat([inputs["numeric"], inputs["categorical"].float()], 1)
    return torch.stack([values, inputs["missing"].float()], 2)


def test_redrawn_cells_are_whole_cells_of_their_column(table):
    data = table()
    before, after = changed(data, "marginal:0.6")
    old, new = cells(before), cells(after)
    for column in range(7):
        known = {tuple(cell) for cell in old[:, column].tolist()}
        assert {tuple(cell) for cell in new[:, column].tolist()} <= known
    assert after["missing"].any()
    assert (after["numeric"][after["missing"][:, :4]] == 0).all()
    assert (after["categorical"][after["missing"][:, 4:]] == 0).all()


def test_so_many_cells_are_redrawn(table):
    """All cells of a column differ here, so a redrawn one can be told but where it hits its own row."""
    data = table(numeric=10, categorical=0, missing=0)
    redrawn = []
    for seed in range(20):
        before, after = changed(data, "marginal:0.6", seed)
        redrawn.append((before["numeric"] != after["numeric"]).sum(1))
    counts = torch.stack(redrawn)
    assert counts.max() == 6
    assert 5.7 < counts.float().mean() < 6
    by_column = (
        open_views("marginal:0.6", data).draws(4000, torch.Generator().manual_seed(0))["0.chosen"].float().mean(0)
    )
    assert (by_column - 0.6).abs().max() < 0.05


def test_cells_are_redrawn_each_from_a_row_of_its_own_with_equal_chance(table):
    data = table(numeric=10, categorical=0, missing=0)
    rows = open_views("marginal:0.3", data).draws(4000, torch.Generator().manual_seed(0))["0.row"]
    assert (torch.bincount(rows.flatten(), minlength=40).float() / 1000 - 1).abs().max() < 0.15
    assert (torch.corrcoef(rows.T.float()) - torch.eye(10)).abs().max() < 0.1


def test_one_cell_at_least_is_redrawn_and_one_left(table):
    before, after = changed(table(numeric=2, categorical=0, missing=0), "marginal:0.1")
    assert (before["numeric"] != after["numeric"]).sum(1).max() == 1
    with pytest.raises(ValueError, match=r"marginal:1 redraws 7 of 7 columns, and nothing of a row would be left"):
        open_views("marginal:1", table())
    with pytest.raises(ValueError, match=r"marginal:0.3 redraws 1 of 1 columns"):
        open_views("marginal", table(numeric=1, categorical=0))


def test_noise_disturbs_the_numbers_that_are_there(table):
    data = table(count=200)
    view = single("noise", 0.5, data)
    before, _, _ = examples(data.train, data.fields, 200, CPU)
    after = view(before, view.draws(200, torch.Generator().manual_seed(0)))
    there = ~before["missing"][:, :4]
    difference = after["numeric"] - before["numeric"]
    assert (difference[~there] == 0).all()
    assert abs(float(difference[there].std()) - 0.5) < 0.05
    assert after["categorical"].equal(before["categorical"])
    assert after["missing"].equal(before["missing"])
    with pytest.raises(ValueError, match="noise is for columns of numbers, and this table has none"):
        open_views("noise", table(numeric=0))


def test_missing_cells_are_marked_and_empty(table):
    data = table(count=400)
    before, after = changed(data, "missing:0.4", seed=1, count=400)
    new = after["missing"] & ~before["missing"]
    assert (after["missing"] >= before["missing"]).all()
    assert abs(float(new.sum() / (~before["missing"]).sum()) - 0.4) < 0.05
    assert (cells(after)[..., 0][after["missing"]] == 0).all()
    assert cells(after)[~new].equal(cells(before)[~new])


def test_something_of_a_row_is_left(table):
    before, after = changed(table(), "missing:0.95")
    assert (~before["missing"]).sum(1).min() == 1
    assert (~after["missing"]).sum(1).min() == 1
