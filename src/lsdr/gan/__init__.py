"""Generative adversarial networks: players, losses, noise, layers, measures of mode collapse."""
