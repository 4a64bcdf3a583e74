"""The daemon's side of the training processes."""
