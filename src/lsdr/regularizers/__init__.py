"""What to add to a loss: penalties on the spectra of features, weights and operators."""
