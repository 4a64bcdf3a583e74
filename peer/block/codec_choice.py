"""Which codec this peer's own offers have: the run's, or a coarser one while its link is too slow for that. Pure."""

COARSE = "sparse"  # a thirtieth of int4's bytes; what it leaves out is sent later
LATE_ROUNDS = 3  # in a row, sealed without this peer's offer, after which its offers become coarse
TRY_AGAIN_ROUNDS = 32  # after which the run's codec is tried again; twice as many each time that it was too slow
MAX_TRY_AGAIN_ROUNDS = 1024


class CodecChoice:
    """Makes offers coarse that come too late, and fine again when the link may have become better."""

    def __init__(self, codec: str) -> None:
        self.codec = codec
        self._fine = codec
        self._late = self._in_time = 0  # rounds in a row
        self._try_again = TRY_AGAIN_ROUNDS

    @property
    def is_coarse(self) -> bool:
        """Whether offers are coarser than the run's codec makes them."""
        return self.codec != self._fine

    def ended(self, *, is_sealed: bool) -> str:
        """Take in a round that the group sealed, with or without this peer's offer; return what changes, in words."""
        if self._fine == COARSE:
            return ""
        self._late, self._in_time = (0, self._in_time + 1) if is_sealed else (self._late + 1, 0)
        if not self.is_coarse and self._late >= LATE_ROUNDS:
            self.codec, self._in_time = COARSE, 0
            return f"offers are {COARSE} from now on: {self._late} of them came too late as {self._fine}"
        if not self.is_coarse and self._in_time >= TRY_AGAIN_ROUNDS:
            self._try_again = TRY_AGAIN_ROUNDS
        if self.is_coarse and self._in_time >= self._try_again:
            self.codec, self._late = self._fine, 0
            self._try_again = min(2 * self._try_again, MAX_TRY_AGAIN_ROUNDS)
            return f"offers are {self._fine} again, to see whether they come in time now"
        return ""
