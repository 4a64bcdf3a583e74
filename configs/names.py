"""The kinds of names and numbers that stand in messages, records, files and settings: each with its one bound."""

from typing import Annotated

from pydantic import Field

MAX_COUNT = 2**48  # below which every count lies: of tokens, ticks, versions and bytes
MAX_ADDRESSES = 16  # of one peer
MAX_ADDRESS_CHARS = 256

Count = Annotated[int, Field(ge=0, lt=MAX_COUNT)]
Positive = Annotated[int, Field(gt=0, lt=MAX_COUNT)]
Share = Annotated[float, Field(ge=0, le=1)]
WallSeconds = Annotated[float, Field(ge=0, le=2**40)]  # since 1970, by some peer's clock

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # a content id, or a SHA-256
RunId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
PeerId = Annotated[str, Field(pattern=r"^[1-9A-HJ-NP-Za-km-z]{40,64}$")]
BlockName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[\w.-]+$")]
DomainName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^\w[\w.-]*$")]
Label = Annotated[str, Field(max_length=64)]  # a name that is compared with what is known, and never taken as it is
Address = Annotated[str, Field(min_length=1, max_length=MAX_ADDRESS_CHARS)]  # a multiaddr
