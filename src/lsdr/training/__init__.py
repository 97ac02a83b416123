"""The training loop that every task shares."""
