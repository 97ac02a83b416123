"""Readers: files of every kind the Genie takes, as documents."""
