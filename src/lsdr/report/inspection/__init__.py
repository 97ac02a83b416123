"""The page of `lsdr inspect`: every layer of a checkpoint in one HTML file."""
