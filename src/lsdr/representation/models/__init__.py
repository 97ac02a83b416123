"""Networks of encoders: backbones by modality, and the projector."""
