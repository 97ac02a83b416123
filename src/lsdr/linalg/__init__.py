"""Spectra of linear operators from their products alone: every value with bounds, method and residual."""
