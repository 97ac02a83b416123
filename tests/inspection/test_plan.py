import pytest
import torch

from lsdr.inspection.heads import key_of, normalised
from lsdr.inspection.plan import depth, plan, short_names
from lsdr.layers.checkpoint.open import open_checkpoint


def test_names_lose_their_ending_unless_it_tells_two_apart():
    assert short_names(["a.weight", "b.weight", "b", "c.bias"]) == {
        "a.weight": "a",
        "b.weight": "b.weight",
        "b": "b",
        "c.bias": "c.bias",
    }


def test_blocks_are_sorted_as_numbers_and_stages_as_they_run():
    names = [
        "out.weight",
        "output_blocks.2.w",
        "input_blocks.10.w",
        "input_blocks.9.w",
        "middle_block.0.w",
        "time_embed.0.w",
    ]
    assert sorted(names, key=depth) == [names[5], names[3], names[2], names[4], names[1], names[0]]


@pytest.mark.parametrize("name", ["layers.²", "layers.٣.w", "layers.", "", ".", "..w"])
def test_names_of_any_characters_can_be_sorted(name):
    assert sorted([name, "layers.1.w"], key=depth)


def test_files_of_torch_keep_their_order(tmp_path):
    state = {name: torch.ones(2, 3) for name in ("z.weight", "a.weight", "m.weight")}
    torch.save(state, tmp_path / "model.pt")
    with open_checkpoint(tmp_path / "model.pt") as checkpoint:
        tasks, _ = plan(checkpoint, {name: name for name in state}, {}, "*")
    assert [task.name for task in tasks] == ["z", "a", "m"]


def test_the_key_of_a_query():
    names = ["a.q_proj.weight", "a.k_proj.weight", "b.add_q_proj.weight", "b.add_k_proj.weight", "c.to_q.weight"]
    assert key_of(names[0], names) == names[1]
    assert key_of(names[2], names) == names[3]
    assert key_of(names[4], names) is None
    assert key_of("fc.weight", names) is None


@pytest.mark.parametrize("name", ["attn.norm_q", "attn.q_norm", "attn.norm_added_q", "attn.norm.query_norm"])
def test_normalised_queries_are_seen(name):
    assert normalised([f"blocks.0.{name}.weight", "blocks.1.attn.to_q.weight"]) == {"blocks.0.attn"}
