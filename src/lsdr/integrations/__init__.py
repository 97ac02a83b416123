"""The monitor inside other people's training loops; each module needs its framework, and nothing else here does."""
