"""The machine's own door: what a daemon serves on loopback, and who reads it."""
