"""What the owner of a machine lets its peer take: caps, hours, and when training gives way. May change while it runs.

The description of a key is what people read of it, wherever the limits are shown.
"""

from typing import Annotated, Any

from pydantic import Field, field_validator

from configs.hours import Hours
from configs.run import Frozen

GB = 10**9
UNITS = {
    "up_mbit": "Mbit/s",
    "down_mbit": "Mbit/s",
    "disk_gb": "GB",
    "memory_gb": "GB",
    "hours": "local time",
    "pause_above_cpu": "share of all cores",
}


RULES = ("hours", "pause_on_battery", "pause_on_gpu_use", "pause_above_cpu")  # by which training rests


class Limits(Frozen):
    """The limits of one machine; None: there is no such limit."""

    up_mbit: Annotated[
        float | None, Field(gt=0, description="This peer sends offers, states and text no faster than this.")
    ] = None
    down_mbit: Annotated[float | None, Field(gt=0, description="It fetches them no faster than this.")] = None
    disk_gb: Annotated[
        float | None,
        Field(
            gt=0,
            description="Its state directory takes no more than this: what it keeps for others is given up first, "
            "its own state never.",
        ),
    ] = None
    memory_gb: Annotated[
        float | None,
        Field(
            gt=0,
            description="Each of its workers takes no more memory than this, of its GPU or else of the machine: it "
            "takes fewer sequences at once.",
        ),
    ] = None
    hours: Annotated[
        str | None,
        Field(max_length=256, description="It trains only in these hours of the day, such as 22:00-07:00."),
    ] = None
    pause_on_battery: Annotated[
        bool, Field(description="It trains only while the machine has mains power, not on its battery.")
    ] = False
    pause_on_gpu_use: Annotated[
        bool, Field(description="It stops training while another program uses a GPU on which it trains.")
    ] = False
    pause_above_cpu: Annotated[
        float | None,
        Field(
            gt=0,
            lt=1,
            description="It stops training while other programs use more of the machine's cores than this share.",
        ),
    ] = None

    @field_validator("hours")
    @classmethod
    def _are_hours(cls, text: str | None) -> str | None:
        if text is not None:
            Hours.parse(text)
        return text

    @property
    def opening_hours(self) -> Hours | None:
        """The hours, read; None: always."""
        return None if self.hours is None else Hours.parse(self.hours)

    @property
    def has_rules(self) -> bool:
        """Whether the machine must be looked at for these limits, or the time."""
        return any(getattr(self, key) for key in RULES)

    def changed(self, change: "Limits") -> "Limits":
        """Return these limits with those that `change` was given over them."""
        return self.model_copy(update=change.model_dump(exclude_unset=True))


def told(limits: Limits) -> dict[str, dict[str, Any]]:
    """Return of each limit its value, its unit, its default, and what it means in a sentence."""
    return {
        key: {
            "value": getattr(limits, key),
            "unit": UNITS.get(key, ""),
            "default": field.default,
            "meaning": field.description,
        }
        for key, field in Limits.model_fields.items()
    }
