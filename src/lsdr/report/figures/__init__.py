"""Plots of the report, one file a subject; each returns a `Plot`, or None where there is nothing to draw."""
