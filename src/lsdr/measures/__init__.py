"""Measures of samples against data that every generative task shares."""
