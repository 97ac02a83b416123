"""Checkpoints on disk, read tensor by tensor, and nothing in them executed."""
