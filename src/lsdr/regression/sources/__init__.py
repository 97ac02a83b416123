"""Tables of every kind as numbered parts of batches, each read by whoever works on it."""
