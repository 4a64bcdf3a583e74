"""`shoal doctor`: which case this machine is in, and what to do about it.

facts.py      what can be measured, as plain values, with "not measured, because …" as a value of its own
machine.py    probes of this machine: port, disk, memory, devices, limits, clock
outside.py    probes of the network, with the help of one peer
verdicts.py   from facts to yes, no or not checked, and what to do; pure
examine.py    all of it, each probe with its deadline
"""
