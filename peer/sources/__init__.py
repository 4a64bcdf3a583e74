"""Reads text as it comes: finds files, says what they are, and reads them as pieces of documents."""
