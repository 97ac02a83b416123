"""From captions to the embeddings that a pipeline's network is conditioned on."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from lsdr.stable_diffusion.parts import config_of
from lsdr.stable_diffusion.pipeline import Pipeline

_AT_ONCE = 32


@torch.no_grad()
def encode_captions(pipeline: Pipeline, captions: Sequence[str]) -> dict[str, Tensor]:
    """What the text encoders make of captions, as diffusers' own pipelines encode them.

    "encoder_hidden_states" (captions, tokens, width), and

    - sd: the CLIP's last hidden state after its final norm; nothing else;
    - sdxl: the penultimate hidden states of both, side by side; "text_embeds", the second one's pooled projection;
    - sd3: those of both CLIPs side by side, widened with zeros, then the T5's (256 tokens; zeros where the folder has
      no T5); "pooled_projections", both CLIPs' pooled projections side by side;
    - flux: the T5's last hidden state (512 tokens, 256 for a transformer without guidance, which is the distilled
      "schnell"); "pooled_projections", the CLIP's pooled output.

    What no encoder has tokens for is cut off, with a warning.

    Args:
        pipeline: Text encoders and tokenizers; they may be on any device.
        captions: Any texts, the empty one too.

    Returns:
        Tensors by name, a row for each caption, float32, on the CPU.

    Raises:
        ValueError: If there are no captions.

    Warns:
        UserWarning: If captions were cut off: how many, and how many tokens of the longest.
    """
    if not captions:
        raise ValueError("no captions to encode; pass at least one (the empty text is a caption too)")
    lost = lost_tokens(pipeline, captions)
    if any(lost):
        longest = captions[lost.index(max(lost))]
        warnings.warn(
            f"{sum(map(bool, lost))} of {len(lost)} captions are longer than the text encoders read: their ends are "
            f"cut off, {max(lost)} tokens of {longest[:60]!r}...; put what matters first",
            stacklevel=2,
        )
    parts = [_encode(pipeline, list(captions[at : at + _AT_ONCE])) for at in range(0, len(captions), _AT_ONCE)]
    return {name: torch.cat([part[name] for part in parts]).float().cpu() for name in parts[0]}


def lost_tokens(pipeline: Pipeline, captions: Sequence[str]) -> list[int]:
    """How many tokens of each caption no text encoder reads.

    Args:
        pipeline: Its tokenizers count.
        captions: The texts.

    Returns:
        A number for each caption, 0 where all of it is read by one encoder at least.
    """
    lost = []
    for tokenizer, length in zip(pipeline.tokenizers, _lengths(pipeline), strict=True):
        # verbose=False: transformers would log that the sequence is too long, which is the question here
        counts = [len(ids) for ids in tokenizer(list(captions), truncation=False, verbose=False).input_ids]
        lost.append([max(0, count - length) for count in counts])
    return [min(counts) for counts in zip(*lost, strict=True)]


def _lengths(pipeline: Pipeline) -> list[int]:
    """How many tokens each text encoder is given."""
    first = pipeline.tokenizers[0].model_max_length
    if pipeline.family == "sd3":
        return [first, first, 256][: len(pipeline.tokenizers)]  # diffusers gives both CLIPs the first one's length
    if pipeline.family == "flux":
        return [first, 512 if config_of(pipeline.network).guidance_embeds else 256]
    return [tokenizer.model_max_length for tokenizer in pipeline.tokenizers]


def _encode(pipeline: Pipeline, captions: list[str]) -> dict[str, Tensor]:
    encoders = pipeline.text_encoders
    ids = [
        tokenizer(captions, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        for tokenizer, length in zip(pipeline.tokenizers, _lengths(pipeline), strict=True)
    ]
    if pipeline.family == "sd":
        # A few text encoders were trained with a mask over the padding and say so; the published ones were not.
        masked = getattr(config_of(encoders[0]), "use_attention_mask", False)
        mask = ids[0].attention_mask.to(_device(encoders[0])) if masked else None
        hidden = encoders[0](ids[0].input_ids.to(_device(encoders[0])), attention_mask=mask)[0]
        return {"encoder_hidden_states": hidden}
    if pipeline.family == "flux":
        pooled = _run(encoders[0], ids[0].input_ids).pooler_output
        return {"encoder_hidden_states": _run(encoders[1], ids[1].input_ids)[0], "pooled_projections": pooled}
    clips = [_run(encoder, each.input_ids, hidden=True) for encoder, each in zip(encoders[:2], ids[:2], strict=True)]
    states = torch.cat([clip.hidden_states[-2].cpu() for clip in clips], dim=-1)
    if pipeline.family == "sdxl":
        return {"encoder_hidden_states": states, "text_embeds": clips[1].text_embeds}
    width = config_of(pipeline.network).joint_attention_dim
    if len(encoders) == 3:
        t5 = _run(encoders[2], ids[2].input_ids)[0].cpu()
    else:
        t5 = states.new_zeros((len(captions), 256, width))
    states = nn.functional.pad(states, (0, width - states.shape[-1]))
    pooled = torch.cat([clip.text_embeds.cpu() for clip in clips], dim=-1)
    return {"encoder_hidden_states": torch.cat([states, t5], dim=1), "pooled_projections": pooled}


def _run(encoder: nn.Module, ids: Int[Tensor, "b n"], *, hidden: bool = False) -> Any:
    return encoder(ids.to(_device(encoder)), output_hidden_states=hidden)


def _device(encoder: nn.Module) -> torch.device:
    return next(encoder.parameters()).device
