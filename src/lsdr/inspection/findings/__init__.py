"""What looks wrong, in words: one rule a function, each with a measured rate of false alarms."""
