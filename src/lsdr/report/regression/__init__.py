"""The path of a backward elimination: reading its JSON, tables of it, and the page of `lsdr reduce`."""
