"""Faults that are data: schedules of them, played on swarms of real daemons, and what must hold all the same."""
