"""The command line; the only place that knows the argument parser."""
