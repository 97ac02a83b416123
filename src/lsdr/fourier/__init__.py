"""Spectra of images."""
