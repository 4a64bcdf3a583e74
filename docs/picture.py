"""Makes docs/status.svg, the picture in the README, from a real run: `make picture`.

Two daemons of the preset `tiny` train on this machine until their sub-models have parted and they have sealed rounds;
the picture is what `shoal status` shows of the second one. It takes about two minutes.
"""

import asyncio
import tempfile
import time
from pathlib import Path

from peer.commands.page import draw, to_svg
from peer.commands.processes import POLL_S, founder, joiner, open_processes
from peer.http.status import Status
from peer.http.view import view

OUT = Path(__file__).with_name("status.svg")
COMMON_TOKENS = 150_000  # a shorter common phase than the preset's, so that experts are to be seen
ROUNDS = 40  # of the peer that is shown
WIDTH = 108
PATIENCE_S = 600.0


async def watch(folder: Path) -> Status:
    """Run two daemons and return the status of the second one at a moment when all is well."""
    async with open_processes() as processes:
        first = founder(folder, "founder", "tiny", SHOAL_RUN__STRATEGY__COMMON_TOKENS=str(COMMON_TOKENS))
        processes.append(first)
        await first.start()
        second = joiner(folder, "joiner", first.address)
        processes.append(second)
        await second.start()
        async with asyncio.timeout(PATIENCE_S):
            while not is_well(status := await second.status()):
                await asyncio.sleep(POLL_S)
        await second.leave()
        await first.leave()
        return status


def is_well(status: Status) -> bool:
    """Say whether there is enough to see, and the trunk's last round was sealed by both."""
    trunk = next((block for block in status.blocks if block.block == "trunk"), None)
    is_training = len(status.peers) == 2 and all(peer.tokens_per_s > 0 for peer in status.peers)
    return trunk is not None and trunk.outcome == "sealed 2 of 2" and is_training and status.peers[0].rounds >= ROUNDS


def main() -> None:
    """Write the picture."""
    with tempfile.TemporaryDirectory(prefix="shoal-picture-") as folder:
        status = asyncio.run(watch(Path(folder)))
    svg = to_svg(draw(view(status, time.time()), width=WIDTH), "shoal status --watch", width=WIDTH)
    OUT.write_text(svg, encoding="utf-8")
    print(f"wrote {OUT}: {len(status.events)} events, {status.peers[0].rounds} rounds, tick {status.tick}")


if __name__ == "__main__":
    main()
