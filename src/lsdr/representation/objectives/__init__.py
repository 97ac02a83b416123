"""Objectives that compare examples one by one, and so are losses of the task."""
