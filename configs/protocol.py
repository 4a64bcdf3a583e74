"""Which protocol this version of Shoal speaks, and what it makes of those of others. Pure.

One rule for everything that travels. It says the protocol that it was written by, and the oldest that its writer still
speaks. Two peers understand each other if these ranges meet: then what a *later* protocol says beyond what is known
here is passed over, and what one's own or an earlier one should not say is refused. If the ranges do not meet, the
older peer is to be updated, and both are told so.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from configs.errors import ProtocolError

PROTOCOL_VERSION = 1  # raised by what a peer of the version before could not read, or would take for something else
OLDEST_PROTOCOL = 1  # that this version still speaks
FIRST_PROTOCOL = 1  # what says nothing of its protocol is of this one: records and messages of it have the same bytes

Protocol = Annotated[int, Field(ge=1, le=2**16)]
# As the oldest that is still spoken: left out where it is the first.
Oldest = Annotated[Protocol, Field(exclude_if=lambda oldest: oldest == FIRST_PROTOCOL)]

UPDATE = "pip install -U shoal"


class Spoken(BaseModel):
    """What a message or a record says of its writer's protocols; whatever else it says is not looked at."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    protocol: Protocol = FIRST_PROTOCOL
    oldest: Protocol = FIRST_PROTOCOL

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.oldest > self.protocol:
            raise ValueError(f"oldest {self.oldest} is later than protocol {self.protocol}")
        return self

    def __str__(self) -> str:
        return f"{self.protocol}" if self.protocol == self.oldest else f"{self.oldest} to {self.protocol}"

    def why_apart(self, who: str) -> str:
        """Say why `who`, which speaks these, and this peer do not understand each other, and the remedy; or nothing."""
        ours = Spoken(protocol=PROTOCOL_VERSION, oldest=OLDEST_PROTOCOL)
        if self.oldest > ours.protocol:
            return (
                f"{who} speaks protocol {self}, this peer speaks {ours}: update this one ({UPDATE}), and start it again"
            )
        if self.protocol < ours.oldest:
            return (
                f"{who} speaks protocol {self}, this peer speaks {ours}: update that one ({UPDATE}), or take here a "
                f"version of shoal that still speaks {self.protocol}"
            )
        return ""

    @property
    def unknown_fields(self) -> Literal["ignore"] | None:
        """What is done with fields that this version does not know; None: what their model says, which forbids them."""
        return "ignore" if self.protocol > PROTOCOL_VERSION else None


def check_need(needed: int, what: str) -> None:
    """Raise ProtocolError, with the remedy, if this version is too old for something that lasts, such as a run."""
    if needed > PROTOCOL_VERSION:
        raise ProtocolError(
            f"this peer speaks protocol {PROTOCOL_VERSION}, {what} needs {needed}: {UPDATE}, and start again; what is "
            "in its state directory stays"
        )
