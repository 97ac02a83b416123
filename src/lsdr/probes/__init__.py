"""Probes: from a model and a choice of layers to spectra."""
