"""What a daemon says of itself and of its swarm: one snapshot, for the view, `status --json` and the metrics."""

from pydantic import BaseModel

SILENT = "silent"  # the state of a peer whose record was not renewed in time: it died, or cannot be reached


class DigestMark(BaseModel):
    """The digest of a block's state after its `version`-th outer step."""

    version: int
    digest: str


class Finding(BaseModel):
    """Something that is wrong: what suffers from it, why it is so, and what helps."""

    code: str  # such as "clock": the same in each version, for links and scripts
    affects: str  # such as "this peer's rounds"
    cause: str
    cure: str
    is_severe: bool = False  # training does not go on, or its work is lost

    def line(self) -> str:
        """Return it as one line."""
        return f"{self.cause}; {self.cure}" if self.cure else self.cause


class Coverage(BaseModel):
    """How a domain's data shards are spread: a shard that nobody trains on is a gap."""

    domain: str
    sub_model: str
    tokens: int
    holders: list[int]  # of each shard: peers that train on it


class BlockStatus(BaseModel):
    """One block as this daemon sees it."""

    block: str
    holders: list[str]
    keepers: list[str]
    age: int = 0  # tokens
    version: int = 0  # outer steps taken
    last_round: int = 0  # tick of the last exchange
    round_ticks: int = 0  # of this peer: as many times the block's as its stride
    outcome: str = ""  # of the last round, such as "sealed 3 of 3" or "skipped: heard 1 of 3"
    agreement: float = 1.0  # share of the holders whose newest common version has the majority's digest
    group: list[str] = []  # who was in this peer's last round of the block
    fates: dict[str, str] = {}  # of them: sealed, late, absent or left out


class PeerStatus(BaseModel):
    """One peer: what it last published, or, for the local one, what is true now."""

    peer_id: str
    sub_model: str = ""
    domain: str = ""
    state: str = ""  # starting, downloading, training, paused, changing, serving, leaving; silent: heard no more
    rounds: int = 0  # sealed by this peer since it first joined; survives a restart
    loss: float | None = None  # nats per token, of the last inner steps
    tokens: int = 0  # trained since it first joined
    tokens_per_s: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    seen_tick: int = 0
    protocol: int = 0  # that it speaks; 0: that is not known
    link: str = ""  # how this daemon is connected with it: direct, relayed, or not at all
    why: str = ""  # it is not seen, or cannot be talked to, as far as that is known; nothing where all is well
    digests: dict[str, list[DigestMark]] = {}  # block → the last five
    held_out: dict[str, float] = {}  # domain → its loss on text that nobody trains on, as it looked last
    excluded: str = ""  # why it is left out; empty: it is not


class MemberStatus(BaseModel):
    """One peer that was admitted to a closed run."""

    peer_id: str
    rights: list[str]
    until: float  # wall-clock seconds
    invited_by: str = ""  # empty: by the admission key
    holds: bool = True  # neither ended nor revoked


class Status(BaseModel):
    """Everything that `shoal status --json` prints."""

    version: str
    protocol: int = 0  # that this version of shoal speaks
    peer_id: str
    run_id: str
    run_name: str
    strategy: str
    phase: str  # common, parted or done
    state: str
    tick: int
    tick_seconds: float
    started_at: float  # wall-clock seconds
    addresses: list[str]
    join: str  # the line that a new peer types
    url: str
    sub_models: dict[str, str]  # name → its domain
    blocks: list[BlockStatus]
    peers: list[PeerStatus]  # the local one first
    age: int = 0  # tokens that the swarm has absorbed
    total_tokens: int = 0
    eta_s: float | None = None
    dht_records: int = 0  # that this peer keeps for the DHT
    warnings: list[str] = []  # what is wrong, why, and what helps; most of the time nothing
    findings: list[Finding] = []  # the same, in its parts
    why: str = ""  # training rests, and when it goes on; empty: it does not
    coverage: list[Coverage] = []
    skipped: dict[str, int] = {}  # cause → rounds of this peer that came to nothing, since its daemon began
    faults: dict[str, int] = {}  # kind → errors that nobody foresaw; the log has the first of each
    privacy: str = ""  # what has left this peer, clipped and noised, and what that is worth; empty: as it is
    is_closed: bool = False  # only those take part who are invited
    members: list[MemberStatus] = []  # of a closed run, whose invitations this peer has seen
    losses: list[tuple[int, float]] = []  # (tokens, loss) of the local peer, thinned to at most 200 points
    held_out: dict[str, list[tuple[int, float]]] = {}  # domain → (tokens, loss on text that nobody trains on), likewise
    events: list[str] = []  # the last changes, newest last: joined, left, restarted, skipped
