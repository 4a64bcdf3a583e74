"""Curves of a peer's training, in the tracker that its owner looks at anyway."""
