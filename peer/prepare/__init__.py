"""Turns text as it comes into a corpus."""
