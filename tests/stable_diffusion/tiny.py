"""Tiny pipelines with random weights in the layout that diffusers writes, and captioned pictures to train them on.

Real in structure, names, files and quirks (pad tokens, end-of-text ids, latent channels, kinds of prediction), small in
every dimension: nothing is downloaded. The VAE is calibrated on photographs, so that its latents have mean 0 and
standard deviation 1 per channel once scaled, as its scale factor promises, and its last layer is fitted to give a rough
picture back. `full_depth` gives UNets the real numbers of levels and layers, for tests of key names.

Import it as other tests' helpers are: `importlib.util.spec_from_file_location("tiny", .../"tiny.py")`.
"""

import csv
import json
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

FAMILIES = ("sd", "sd2", "sdxl", "sd3", "flux")
_SCALE = {"sd": (0.18215, None), "sd2": (0.18215, None), "sdxl": (0.13025, None), "sd3": (1.5305, 0.0609)}
_SCALE["flux"] = (0.3611, 0.1159)
_WORDS = "a the of on in with and photo picture flower temple china red green blue sky roof petals small large crop"


def make(
    folder,
    family,
    *,
    seed=0,
    full_depth=False,
    dtype=torch.float32,
    variant=None,
    network=None,
    vae=None,
    scheduler=None,
):
    """Write a whole pipeline folder and return its path; about half a second.

    Args:
        folder: Where; made if it is not there.
        family: One of FAMILIES.
        seed: Of the random weights; the same seed gives the same weights.
        full_depth: Real numbers of levels and layers in the UNet (sd, sd2: 4 levels of 2; sdxl: 3 levels of 2).
        dtype: Of the weights on disk.
        variant: "fp16" writes model.fp16.safetensors, as published half-precision files are named.
        network, vae, scheduler: Entries that replace those of the configuration of the UNet or transformer, of the VAE
            (after calibration: `vae={"scaling_factor": 1.0}` is a pipeline whose VAE has the wrong scale), and of the
            scheduler.
    """
    folder = Path(folder)
    import transformers

    transformers.utils.logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipeline = _pipeline(family, full_depth, network or {}, vae or {}, scheduler or {})
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module) and dtype != torch.float32:
            part.to(dtype)
    pipeline.save_pretrained(folder, safe_serialization=True, variant=variant)
    _name_as_published(folder)
    for name in ("tokenizer", "tokenizer_2"):
        if (folder / name).is_dir() and not (name == "tokenizer_2" and family == "flux"):
            _write_clip_tokenizer(folder / name, pad="!" if family == "sd2" or name == "tokenizer_2" else None)
    return folder


def photos(
    folder,
    count=20,
    captions="txt",
    sizes=((96, 96), (96, 64), (64, 96), (128, 96)),
    seed=0,
):
    """Write `count` crops of two photographs as PNG files of the given (height, width) in turn, with captions.

    Args:
        folder: Where; made if it is not there.
        count: How many.
        captions: "txt" (one file beside each), "jsonl" or "csv" (metadata with file_name and text), or None.
        sizes: (height, width) in turn.
        seed: Of the crops.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    rows = []
    for index in range(count):
        subject, colour = (("temple in china", "red roof"), ("flower", "large petals"))[index % 2]
        height, width = sizes[index % len(sizes)]
        name, caption = f"{index:03d}.png", f"a photo of a {subject} with {colour}, crop {index}"
        _picture(index % 2, height, width, random).save(folder / name)
        rows.append({"file_name": name, "text": caption})
        if captions == "txt":
            (folder / name).with_suffix(".txt").write_text(caption + "\n", encoding="utf-8")
    if captions == "jsonl":
        (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if captions == "csv":
        with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["file_name", "text"])
            writer.writeheader()
            writer.writerows(rows)
    return folder


@cache
def _photographs():
    from sklearn.datasets import load_sample_images

    return tuple(np.asarray(image) for image in load_sample_images().images)


def _picture(which, height, width, random):
    photograph = _photographs()[which]
    zoom = random.uniform(1.0, min(photograph.shape[0] / height, photograph.shape[1] / width, 4.0))
    tall, wide = int(height * zoom), int(width * zoom)
    top = random.integers(0, photograph.shape[0] - tall + 1)
    left = random.integers(0, photograph.shape[1] - wide + 1)
    return Image.fromarray(photograph[top : top + tall, left : left + wide]).resize((width, height), Image.LANCZOS)


def _pipeline(family, full_depth, network, vae, scheduler):
    import diffusers

    if family in ("sd", "sd2"):
        return diffusers.StableDiffusionPipeline(
            vae=_vae(family, vae),
            text_encoder=_clip(32, 2 if family == "sd" else 3, act="quick_gelu" if family == "sd" else "gelu"),
            tokenizer=_clip_tokenizer("!" if family == "sd2" else None),
            unet=_unet(family, full_depth, network),
            scheduler=_ddpm(family, scheduler),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    if family == "sdxl":
        return diffusers.StableDiffusionXLPipeline(
            vae=_vae(family, vae),
            text_encoder=_clip(12, 2),
            text_encoder_2=_clip(20, 3, projection=16, act="gelu"),
            tokenizer=_clip_tokenizer(None),
            tokenizer_2=_clip_tokenizer("!"),
            unet=_unet(family, full_depth, network),
            scheduler=_ddpm(family, scheduler),
            add_watermarker=False,
        )
    flow = diffusers.FlowMatchEulerDiscreteScheduler(**{"shift": 3.0, **scheduler})
    if family == "sd3":
        given = {"sample_size": 8, "patch_size": 2, "in_channels": 16, "out_channels": 16, "num_layers": 2}
        given |= {"attention_head_dim": 8, "num_attention_heads": 4, "joint_attention_dim": 32}
        given |= {"caption_projection_dim": 32, "pooled_projection_dim": 24, "pos_embed_max_size": 24}
        return diffusers.StableDiffusion3Pipeline(
            transformer=diffusers.SD3Transformer2DModel(**given | network),
            scheduler=flow,
            vae=_vae(family, vae),
            text_encoder=_clip(12, 2, projection=12),
            tokenizer=_clip_tokenizer(None),
            text_encoder_2=_clip(12, 3, projection=12, act="gelu"),
            tokenizer_2=_clip_tokenizer("!"),
            text_encoder_3=_t5(),
            tokenizer_3=_t5_tokenizer(),
        )
    if family != "flux":
        raise ValueError(f"family is {family!r}; expected one of {FAMILIES}")
    given = {"patch_size": 1, "in_channels": 64, "num_layers": 1, "num_single_layers": 2, "attention_head_dim": 16}
    given |= {"num_attention_heads": 2, "joint_attention_dim": 32, "pooled_projection_dim": 16}
    given |= {"guidance_embeds": True, "axes_dims_rope": (4, 6, 6)}
    transformer = diffusers.FluxTransformer2DModel(**given | network)
    return diffusers.FluxPipeline(
        scheduler=flow,
        vae=_vae(family, vae),
        text_encoder=_clip(16, 2),
        tokenizer=_clip_tokenizer(None),
        text_encoder_2=_t5(),
        tokenizer_2=_t5_tokenizer(),
        transformer=transformer,
    )


def _unet(family, full_depth, changes):
    import diffusers

    given = {"sample_size": 8, "in_channels": 4, "out_channels": 4, "cross_attention_dim": 32, "norm_num_groups": 8}
    given |= {"block_out_channels": (16, 32), "layers_per_block": 1, "attention_head_dim": 2}
    given["down_block_types"] = ("CrossAttnDownBlock2D", "DownBlock2D")
    given["up_block_types"] = ("UpBlock2D", "CrossAttnUpBlock2D")
    if full_depth:
        given |= {"block_out_channels": (8, 16, 16, 16), "layers_per_block": 2}
        given["down_block_types"] = (*["CrossAttnDownBlock2D"] * 3, "DownBlock2D")
        given["up_block_types"] = ("UpBlock2D", *["CrossAttnUpBlock2D"] * 3)
    if family == "sd2":  # heads of one size, so their number grows with the level; linear projections
        given |= {"attention_head_dim": (1, 2, 2, 2) if full_depth else (2, 4), "use_linear_projection": True}
    if family == "sdxl":
        given |= {"block_out_channels": (16, 24), "attention_head_dim": (2, 3), "use_linear_projection": True}
        given["transformer_layers_per_block"] = (1, 2)
        given["down_block_types"] = ("DownBlock2D", "CrossAttnDownBlock2D")
        given["up_block_types"] = ("CrossAttnUpBlock2D", "UpBlock2D")
        given |= {"addition_embed_type": "text_time", "addition_time_embed_dim": 8}
        given["projection_class_embeddings_input_dim"] = 16 + 6 * 8
        if full_depth:
            given |= {"block_out_channels": (8, 16, 16), "attention_head_dim": (1, 2, 2)}
            given["transformer_layers_per_block"] = (1, 2, 3)
            given["down_block_types"] = ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D")
            given["up_block_types"] = ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")
    return diffusers.UNet2DConditionModel(**given | changes)


def _ddpm(family, changes):
    import diffusers

    given = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
    given |= {"steps_offset": 1, "prediction_type": "v_prediction" if family == "sd2" else "epsilon"}
    if family == "sdxl":
        return diffusers.EulerDiscreteScheduler(**given | {"timestep_spacing": "leading"} | changes)
    given["set_alpha_to_one"] = False
    if family == "sd":
        return diffusers.PNDMScheduler(**given | {"skip_prk_steps": True} | changes)
    return diffusers.DDIMScheduler(**given | {"clip_sample": False} | changes)


def _vae(family, changes):
    import diffusers

    scale, shift = _SCALE[family]
    channels = 4 if shift is None else 16
    given = {"block_out_channels": (8, 8, 8, 8), "layers_per_block": 1, "norm_num_groups": 4, "sample_size": 64}
    given |= {"latent_channels": channels, "scaling_factor": scale, "shift_factor": shift}
    given |= {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    given |= {"use_quant_conv": shift is None, "use_post_quant_conv": shift is None}
    structure = {key: value for key, value in changes.items() if key not in ("scaling_factor", "shift_factor")}
    vae = diffusers.AutoencoderKL(**{**given, **structure}).eval()
    _calibrate(vae, scale, shift or 0.0)
    vae.register_to_config(**{key: value for key, value in changes.items() if key not in structure})
    return vae


@torch.no_grad()
def _calibrate(vae, scale, shift):
    """Make (mean - shift) * scale of photographs mean 0 and deviation 1 in every channel; fit the last layer."""
    for name, module in vae.named_modules():  # blocks close to the identity and smoothing resamplers: little is lost
        if name.endswith((".conv2", ".to_out.0")):
            module.weight *= 0.1
        if "samplers." in name and name.endswith(".conv"):
            module.weight *= 0.1
            module.weight += torch.eye(module.out_channels)[:, :, None, None] / 9
    random = np.random.default_rng(7)
    crops = np.stack([np.asarray(_picture(index % 2, 64, 64, random)) for index in range(16)])
    pixels = torch.from_numpy(crops).permute(0, 3, 1, 2) / 127.5 - 1
    mean = vae.encode(pixels).latent_dist.mean
    last, channels = vae.quant_conv or vae.encoder.conv_out, mean.shape[1]
    gain = 1 / (scale * mean.std(dim=(0, 2, 3)))
    last.weight[:channels] *= gain[:, None, None, None]
    last.bias[:channels] = (last.bias[:channels] - mean.mean(dim=(0, 2, 3))) * gain + shift
    last.weight[channels:] *= 0.1
    last.bias[channels:] = 2 * np.log(0.05 / scale)  # the posterior's deviation is about 0.05 in scaled units
    features = []
    hook = vae.decoder.conv_out.register_forward_pre_hook(lambda module, given: features.append(given[0]))
    vae.decode(vae.encode(pixels).latent_dist.mean)
    hook.remove()
    columns = torch.nn.functional.unfold(features[0], 3, padding=1).transpose(1, 2).flatten(0, 1).double()
    columns = torch.cat([columns, torch.ones(len(columns), 1, dtype=torch.float64)], dim=1)
    targets = pixels.permute(0, 2, 3, 1).flatten(0, 2).double()
    gram = columns.T @ columns + 1e-3 * torch.eye(columns.shape[1], dtype=torch.float64)
    fitted = torch.linalg.solve(gram, columns.T @ targets).float()
    vae.decoder.conv_out.weight.copy_(fitted[:-1].T.reshape(vae.decoder.conv_out.weight.shape))
    vae.decoder.conv_out.bias.copy_(fitted[-1])


def _clip(width, layers, *, projection=None, act="quick_gelu"):
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(_clip_vocabulary()[0]),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=77,
        hidden_act=act,
        projection_dim=projection or width,
        bos_token_id=0,
        eos_token_id=2,  # as published: not the token's id, which the model knows as "the old configuration"
        pad_token_id=1,
        initializer_factor=1.0,
        initializer_range=0.1,
    )
    return (CLIPTextModel if projection is None else CLIPTextModelWithProjection)(config).eval()


def _t5():
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=len(_t5_vocabulary()) + 100,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        is_encoder_decoder=True,
    )
    return T5EncoderModel(config).eval()


def _name_as_published(folder):
    """The published text encoders have "text_model." before every name, which transformers 5 leaves out."""
    for file in folder.glob("text_encoder*/*.safetensors"):
        if json.loads((file.parent / "config.json").read_text())["architectures"] == ["CLIPTextModel"]:
            tensors = load_file(file)
            named = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in tensors.items()}
            save_file(named, file, {"format": "pt"})


@cache
def _clip_vocabulary():
    """The vocabulary and merges of a byte-level BPE in CLIP's order: bytes, bytes ending a word, merges, two marks."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    symbols = [chr(byte) for byte in printable] + [chr(256 + index) for index in range(256 - len(printable))]
    tokens, merges = symbols + [symbol + "</w>" for symbol in symbols], []
    for word in _WORDS.split():
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            merged = pieces[0] + pieces[1]
            if merged not in tokens:
                tokens.append(merged)
                merges.append((pieces[0], pieces[1]))
            pieces = [merged, *pieces[2:]]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return {token: index for index, token in enumerate(tokens)}, merges


def _clip_tokenizer(pad):
    from transformers import CLIPTokenizer

    vocabulary, merges = _clip_vocabulary()
    given = {} if pad is None else {"pad_token": pad}
    return CLIPTokenizer(vocab=dict(vocabulary), merges=list(merges), model_max_length=77, **given)


def _write_clip_tokenizer(folder, pad):
    """The files of the published folders: vocab.json, merges.txt, special_tokens_map.json, tokenizer_config.json."""
    for file in folder.iterdir():
        file.unlink()
    vocabulary, merges = _clip_vocabulary()
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    special["pad_token"] = pad or "<|endoftext|>"
    (folder / "special_tokens_map.json").write_text(json.dumps(special), encoding="utf-8")
    config = {
        "model_max_length": 77,
        "tokenizer_class": "CLIPTokenizer",
        "add_prefix_space": False,
        "errors": "replace",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "do_lower_case": True, **special}))


@cache
def _t5_vocabulary():
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -3.0)]
    pieces += [("▁" + word, -4.0) for word in _WORDS.split()]
    return tuple(pieces + [(chr(code), -6.0) for code in range(33, 127)])


def _t5_tokenizer():
    from transformers import T5Tokenizer

    pieces = [*_t5_vocabulary(), *((f"<extra_id_{index}>", 0.0) for index in range(99, -1, -1))]
    return T5Tokenizer(vocab=pieces, model_max_length=512)
