"""Statistics of a spectrum: one plain differentiable function a file."""
