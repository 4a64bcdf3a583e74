"""Benchmarks, each one command: `python -m benchmarks.NAME [--quick] [--json FILE]`. What they share is `report.py`."""
