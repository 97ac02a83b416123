"""What LSDR adds to other people's scripts is ten lines, and each of them is marked."""

import ast
import re
from pathlib import Path

import diffusers
import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = ("diffusers_text_to_image", "trainer_style", "lightning_module")
OURS = re.compile(r"\b(lsdr|penalty|monitor|denoise|denoised|noisy|sigma|given|bound|MonitorCallback)\b")


@pytest.mark.parametrize("script", SCRIPTS)
def test_ten_lines_are_added_and_no_other_is_ours(script):
    text = (EXAMPLES / f"{script}.py").read_text(encoding="utf-8")
    first = ast.parse(text).body[0].end_lineno  # the docstring
    lines = text.splitlines()[first:]
    assert sum(line.endswith("  #") for line in lines) == 10
    for line in lines:
        code = "" if line.lstrip().startswith('"""') else line.split("#")[0]
        assert line.endswith("  #") or not OURS.search(code), line


def test_the_pipeline_of_the_examples_is_read_back(tmp_path, monkeypatch):
    """The folder that the page on Stable Diffusion begins with: a caption for every image, parts that fit together."""
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    monkeypatch.setattr("sys.argv", ["tiny_pipeline.py", str(tmp_path)])
    import tiny_pipeline

    tiny_pipeline.main()
    images = sorted((tmp_path / "photos").glob("*.png"))
    assert len(images) == 20
    assert all(image.with_suffix(".txt").read_text(encoding="utf-8").strip() for image in images)
    assert (tmp_path / "pipeline" / "model_index.json").is_file()
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path / "pipeline", local_files_only=True)
    pixels = tiny_pipeline.as_pixels([image for image, _ in tiny_pipeline.captioned_photos()])
    with torch.no_grad():
        latents = pipeline.vae.encode(pixels).latent_dist.mean * pipeline.vae.config.scaling_factor
        embeddings = pipeline.encode_prompt(["a red flower", "a temple"], "cpu", 1, False)[0]
    assert float(latents.std()) == pytest.approx(1, abs=1e-4)
    assert not torch.equal(*embeddings)
