"""Why a peer that is known is not seen, as far as this one can tell. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from configs.errors import ProtocolError


@dataclass(frozen=True)
class Trace:
    """What is known of a peer's way to this one."""

    is_present: bool  # its record was renewed in time
    is_connected: bool
    has_address: bool  # in its last record
    silent_s: float  # since that
    failure: str = ""  # why it could not be dialled, or greeted, the last time
    apart: str = ""  # why it cannot be understood, with the remedy, if its records are of another protocol


def why_unseen(trace: Trace) -> str:
    """Say why a peer is not seen, or seen by others only; nothing where all is well."""
    if trace.apart:
        return trace.apart
    if trace.is_present:
        if trace.is_connected or not trace.failure:
            return ""
        return f"its record still holds, and it cannot be dialled from here: {trace.failure}"
    silent = f"silent for {trace.silent_s:,.0f} s"
    if trace.is_connected:
        return f"{silent}, though it is connected: its machine sleeps or is too busy, or its clock is off"
    if trace.failure:
        return f"{silent}: {trace.failure}"
    return f"{silent}: it is not connected" if trace.has_address else f"{silent}: it has told no address to dial it at"


def check_understood(apart: Mapping[str, str], understood: Collection[str]) -> None:
    """Raise ProtocolError, with the remedy, if others of the run are there, and this peer understands none of them.

    `apart`: known peers of other protocols, each with the reason; `understood`: known peers whose records can be read.
    """
    if apart and not understood:
        reason = min(apart.items())[1]
        many = f"none of the {len(apart)} others of the run is understood here" if len(apart) > 1 else ""
        raise ProtocolError(f"{many}; {reason}" if many else reason)
