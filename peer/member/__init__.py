"""What a peer does as a member of a run."""
