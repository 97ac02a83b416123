"""What a trained diffusion model is measured by: one plain function a file, one sentence each in `catalogue`."""
