"""The spectrum of the denoising step: reading it, a table of it, and the page of `lsdr inspect --operator`."""
