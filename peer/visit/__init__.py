"""A look at a run by somebody who is no member."""
