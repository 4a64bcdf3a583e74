"""Counts the tokens of one sub-model, and what of them is in the anchor and in the snapshot.

The worker counts what it trains. The daemon keeps the same account, by what the worker tells, to know where training
begins after a restart. Both make the same moves. Nothing heavy is imported.
"""


class TokenLedger:
    """Tokens trained since a sub-model was loaded, without those that were dropped."""

    def __init__(self, anchor: int = 0, snapshot: int = 0) -> None:
        """Begin with what the anchor contains; `snapshot`: what the last snapshot contained, whatever came of it."""
        self.tokens = anchor  # in θ
        self.in_anchor = anchor  # of these, the part that is safe in the anchor
        self.in_snapshot = snapshot  # the part that was in the snapshot when it was taken
        # False after a reset to the anchor: the work in the last snapshot is no longer in θ.
        self._has_snapshot_work = False

    @property
    def since_anchor(self) -> int:
        """Tokens in θ that the anchor does not contain."""
        return self.tokens - self.in_anchor

    def trained(self, tokens: int) -> None:
        """Count a step."""
        self.tokens += tokens

    def snapshot(self) -> None:
        """Count what is in the snapshot, which θ has just been copied into."""
        self.in_snapshot = self.tokens
        self._has_snapshot_work = True

    def rebased(self) -> None:
        """A new anchor, which contains the work of the snapshot, has gone into θ."""
        if not self._has_snapshot_work:  # this work was dropped here, and comes back with the anchor
            self.tokens += self.in_snapshot - self.in_anchor
            self._has_snapshot_work = True
        self.in_anchor = self.in_snapshot

    def reset(self) -> None:
        """θ went back to the anchor: what was trained since is dropped."""
        self.tokens = self.in_anchor
        self._has_snapshot_work = False
