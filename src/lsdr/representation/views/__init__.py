"""Views: what an example looks like after changes that must not matter, by modality and by name."""
