"""Diffusion: denoisers, weightings, samplers, models, measures, and the run that trains one."""
