"""Measures of an encoder: with labels and without, how invariant, how robust, and what it responds to."""
