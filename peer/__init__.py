"""The daemon that ties the layers together, its commands and its windows. Read `daemon.py` first."""

__version__ = "0.1.0"
