"""What a member lets its own machine look at, and ask: the daemon's side of the page."""

from collections.abc import AsyncGenerator, Callable

from peer.answers.asker import Wish
from peer.http.history import Piece, Share
from peer.http.playground import Prompt
from peer.http.status_page import Shown
from peer.member.lookout import Lookout
from peer.member.report import Parts
from peer.member.share import share_of


def shown_of(parts: Parts, lookout: Lookout, dht_bytes: Callable[[], tuple[int, int]]) -> Shown:
    """Return what may be looked at; nothing is asked of the network for it, but by `ask`."""

    async def share() -> Share:
        return share_of(parts, dht_bytes())

    def ask(prompt: Prompt) -> AsyncGenerator[Piece, None]:
        return parts.asker.ask(Wish(prompt.prompt, prompt.max_tokens, prompt.temperature))

    return Shown(
        status=lookout.status,
        pulse=lookout.pulse,
        curves=lambda: parts.learning.curves,
        rounds=parts.timeline.rounds,
        answers=lambda: parts.prompts.history,
        share=share,
        ask=ask,
    )
