import pytest
import torch

from lsdr.representation.data.representation_data import examples
from lsdr.representation.views.open import open_views, single

CPU = torch.device("cpu")


def changed(data, spec, seed=0):
    view = open_views(spec, data)
    inputs, _, _ = examples(data.train, data.fields, 12, CPU)
    made = view(inputs, view.draws(12, torch.Generator().manual_seed(seed)))
    return inputs["tokens"], made["tokens"]


@pytest.mark.parametrize(("padding", "mask"), [(0, 2), (3, 4)])
def test_masked_tokens_are_masked_and_the_others_stay(texts, padding, mask):
    gone = total = 0
    for seed in range(60):
        before, after = changed(texts(padding=padding, mask=mask), "token_dropout:0.3", seed)
        changes = before != after
        assert (after[changes] == mask).all()
        assert not changes[before == padding].any()
        full = (before != padding).all(1)
        gone, total = gone + int(changes[full].sum()), total + before[full].numel()
    assert abs(gone / total - 0.3) < 0.06


def test_one_token_is_left(texts):
    for seed in range(20):
        before, after = changed(texts(), "token_dropout:0.95", seed)
        left = ((after == before) & (before != 0)).sum(1)
        assert left.tolist()[0] == 0  # the empty text
        assert (left[1:] >= 1).all()


@pytest.mark.parametrize(("share", "padding"), [(0.2, 0), (0.5, 3), (0.95, 0)])
def test_one_stretch_is_taken_out(texts, share, padding):
    starts = set()
    for seed in range(40):
        before, after = changed(texts(padding=padding), f"span_deletion:{share}", seed)
        for old, new in zip(before, after, strict=True):
            words = old[old != padding].tolist()
            kept = new[new != padding].tolist()
            length = len(kept)
            gone = min(round(share * len(words)), max(len(words) - 1, 0))
            assert len(words) - length == gone
            fits = [k for k in range(length + 1) if words[:k] + words[k + gone :] == kept]
            assert fits
            assert new[length:].eq(padding).all()
            if len(words) == 10 and gone:
                starts.update(fits)
    assert starts == set(range(10 - round(share * 10) + 1)) or share > 0.9


def test_tokens_shorter_than_the_data_say(texts):
    data = texts()
    view = open_views("token_dropout,span_deletion", data)
    draws = view.draws(2, torch.Generator().manual_seed(0))
    assert view({"tokens": torch.tensor([[5, 6, 7], [8, 9, 0]])}, draws)["tokens"].shape == (2, 3)


def test_single_is_the_same_rate(texts):
    data = texts()
    inputs, _, _ = examples(data.train, data.fields, 12, CPU)
    one, other = single("token_dropout", 0.4, data), open_views("token_dropout:0.4", data)
    made = [view(inputs, view.draws(12, torch.Generator().manual_seed(0)))["tokens"] for view in (one, other)]
    assert made[0].equal(made[1])
