"""Why a peer that is known is not seen, as far as this one can tell. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Trace:
    """What is known of a peer's way to this one."""

    is_present: bool  # its record was renewed in time
    is_connected: bool
    has_address: bool  # in its last record
    silent_s: float  # since that
    failure: str = ""  # why it could not be dialled, or greeted, the last time


def why_unseen(trace: Trace) -> str:
    """Say why a peer is not seen, or seen by others only; nothing where all is well."""
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
