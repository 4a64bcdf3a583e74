"""One block on one peer: its replica, its rounds, its files."""
