"""The one error tree. Every message names what is wrong and what to do about it.

The command line turns a `ShoalError` into one line on stderr and its `exit_code`; anything else is a bug
and keeps its traceback.
"""


class ShoalError(Exception):
    """Something failed that a person can act on."""

    exit_code = 1


class UsageError(ShoalError):
    """The user asked for something impossible: a bad flag, a wrong address, a missing file."""

    exit_code = 2


class ConfigError(UsageError):
    """A preset, an environment variable or a flag holds a value that is not allowed."""


class DataError(UsageError):
    """Text, tokens or a model directory that cannot be used as it is."""


class NetworkError(ShoalError):
    """The network refused: an address that does not answer, a taken port, a clock that is off."""


class RefusedError(NetworkError):
    """A peer of a closed run answers, but not this one: there is no invitation, or it does not hold any more."""


class PeerError(ShoalError):
    """A peer sent something that is not allowed. Ends that exchange, never the daemon."""


class ProtocolError(PeerError):
    """A peer, or a run, is of a protocol that this version does not speak: says which of the two is to be updated."""


class StateError(ShoalError):
    """The state directory cannot be used: locked, of another run, damaged, or its disk is full."""


class DeviceError(ShoalError):
    """A device is missing, too small, or failed while training."""
