"""A peer as a service of its machine: what systemd and launchd are told, and how they are asked."""
