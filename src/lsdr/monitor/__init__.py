"""Probes on a schedule, within a budget: what a training run looks like from inside."""
