"""Least squares: backward elimination from one pass over the data."""
