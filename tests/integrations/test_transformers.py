"""The real Trainer on a tiny model."""

import pytest
import torch
from torch import nn

transformers = pytest.importorskip("transformers")

from lsdr.integrations.transformers import MonitorCallback  # noqa: E402
from lsdr.probes.attention import AttentionProbe  # noqa: E402
from lsdr.probes.gradients import GradientProbe  # noqa: E402
from lsdr.probes.tracked import TrackedWeightProbe  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def trainer(folder, steps, *callbacks, report_to="none"):
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=17, n_positions=8, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    model = transformers.GPT2LMHeadModel(config)
    tokens = torch.randint(17, (16, 8), generator=torch.Generator().manual_seed(0))
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), max_steps=steps, per_device_train_batch_size=2, gradient_accumulation_steps=2,
        logging_steps=10, save_steps=2, report_to=report_to, use_cpu=True, disable_tqdm=True, max_grad_norm=0.1, seed=0,
    )  # fmt: skip
    data = [{"input_ids": row, "labels": row} for row in tokens]
    return transformers.Trainer(model, arguments, train_dataset=data, callbacks=list(callbacks))


def probes():
    return [TrackedWeightProbe(), GradientProbe(), AttentionProbe()]


def test_values_go_to_the_history_and_to_trackers_and_training_is_as_without(tmp_path):
    plain = trainer(tmp_path / "plain", 4)
    plain.train()
    seen = []

    class Tracker(transformers.TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            seen.append((state.global_step, logs))

    watched = trainer(tmp_path / "watched", 4, Tracker())
    callback = MonitorCallback(watched, probes(), every=2, budget=None)
    watched.add_callback(callback)
    watched.train()
    torch.testing.assert_close(watched.model.state_dict(), plain.model.state_dict(), rtol=0, atol=0)
    block = "transformer.h.0.attn"
    records = [record for record in watched.state.log_history if f"weights/{block}.c_attn/sigma_max" in record]
    assert [record["step"] for record in records] == [0, 2]
    for record in records:
        assert record[f"weights/{block}.c_attn/stable_rank"] > 1
        assert 0 < record[f"attention/{block}/entropy"] < torch.log(torch.tensor(8.0))
        gradients = [value for name, value in record.items() if name.startswith("gradients/") and "norm" in name]
        norms = torch.tensor([v for n, v in record.items() if n.startswith("gradients/") and n.endswith("/norm")])
        assert len(gradients) > 5
        assert norms.norm() < 0.15  # of both chunks, clipped to 0.1 (the tied embedding is counted twice)
    tracked = [(step, logs) for step, logs in seen if "monitor/share" in logs]
    assert [step for step, _ in tracked] == [0, 2]
    assert not any(len(module._forward_hooks) for module in watched.model.modules())


def test_a_resumed_run_takes_up_the_monitor(tmp_path):
    first = trainer(tmp_path, 2)
    first.add_callback(MonitorCallback(first, every=2, budget=None))
    first.train()
    assert (tmp_path / "checkpoint-2" / "monitor.safetensors").exists()
    second = trainer(tmp_path, 4)
    callback = MonitorCallback(second, every=2, budget=None)
    second.add_callback(callback)
    second.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert callback.monitor.spent.turns == 2
    changes = [record for record in second.state.log_history if "weights/largest_change" in record]
    assert len(changes) == 1  # relative to what was measured before the interruption


def test_a_failed_run_leaves_no_hook_in_the_next(tmp_path):
    failing = trainer(tmp_path, 2)
    callback = MonitorCallback(None, probes(), every=1, budget=None)
    failing.add_callback(callback)
    embedding, failing.model.transformer.wte = failing.model.transformer.wte, nn.Embedding(3, 8)
    with pytest.raises(IndexError):
        failing.train()
    failing.model.transformer.wte = embedding
    failing.train()
    assert not any(len(module._forward_hooks) for module in failing.model.modules())
    assert callback.monitor.spent.turns == 2
