"""What is measured of a GAN: modes, realism, overfitting, memorisation, smoothness."""
