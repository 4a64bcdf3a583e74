"""A peer that has one state of a block, as a store meets it."""

from types import SimpleNamespace
from typing import Any

from peer.train.outer import OuterState
from protocols.shards import ChunkRequest, ManifestRequest, Shards
from protocols.state import BlockState, BlockStates
from protocols.traffic import Traffic
from protocols.wire import Frames

CONTEXT: Any = SimpleNamespace(remote_id="somebody")


class Source:
    """A peer that has one state, and may tell of it what is not so, or go after some chunks."""

    def __init__(self, state: OuterState, **lies: object) -> None:
        facts = {"block": state.block, "version": state.version, "round": state.round, "age": state.age}
        told = {**facts, "content_id": state.digest, "size_bytes": len(state.blob), "is_final": False, **lies}
        self.told = BlockState.model_validate(told)
        self.chunks_left = 1 << 30
        self.sent: list[int] = []
        self._shards = Shards(lambda wanted: state.blob if wanted == state.digest else None, Traffic())

    async def rpc_blocks(self, request: object) -> BlockStates:
        return BlockStates(blocks=[self.told])

    async def rpc_manifest(self, request: ManifestRequest) -> Frames:
        return self._shards.rpc_manifest(request, None)

    async def rpc_chunks(self, request: ChunkRequest) -> Frames:
        return self._until_it_goes(request)

    async def _until_it_goes(self, request: ChunkRequest) -> Frames:
        index = request.first
        async for frame in self._shards.rpc_chunks(request, CONTEXT):
            if frame.data:
                if not self.chunks_left:
                    raise ConnectionError("gone")
                self.chunks_left -= 1
                self.sent.append(index)
                index += 1
            yield frame
