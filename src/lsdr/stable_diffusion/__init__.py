"""Stable Diffusion: fine-tune it, full or LoRA, and see what that did."""
