"""Look at a checkpoint: every layer's spectrum, what changed against a base, and what looks wrong."""
