"""Where to look in a model: layers by name, and their outputs as it runs."""
