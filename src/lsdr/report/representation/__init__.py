"""What a report says of learned representations: how good, invariant, robust and compact the codes are."""
