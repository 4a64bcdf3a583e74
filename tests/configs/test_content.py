"""A blob has the same name whether it is at hand as a whole or comes in pieces."""

import pytest

from configs.content import CHUNK_BYTES, content_id_of, content_id_of_pieces


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES + 7])
@pytest.mark.parametrize("step", [1 << 12, CHUNK_BYTES, CHUNK_BYTES + 3, 10 * CHUNK_BYTES])
def test_pieces_of_any_size_give_the_same_name(size: int, step: int) -> None:
    data = (bytes(range(251)) * (size // 251 + 1))[:size]
    assert content_id_of_pieces(data[at : at + step] for at in range(0, size, step)) == content_id_of(data)
