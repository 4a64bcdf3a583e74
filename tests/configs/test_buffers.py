"""A buffer is used again when nobody holds it, and never before."""

import gc

import numpy as np
import torch

from configs import buffers

SIZE = 3_000_001


def address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def test_what_is_held_in_any_form_is_not_given_away() -> None:
    held = [
        buffers.take(SIZE),
        torch.from_numpy(buffers.take(SIZE)),
        torch.from_numpy(buffers.take(4 * SIZE)).view(torch.float32)[5:9],
        buffers.take(SIZE).data[10:20],
        torch.frombuffer(buffers.take(SIZE + 3).data, dtype=torch.float32, offset=4, count=7),
        bytes(buffers.take(SIZE)),  # a copy, whose buffer is free
    ]
    taken = [buffers.take(size) for size in (SIZE, SIZE, SIZE, 4 * SIZE)]
    spans = [(address(array), address(array) + len(array)) for array in taken]
    for tensor in (held[1], held[2], held[4]):
        assert isinstance(tensor, torch.Tensor)
        assert not any(start <= tensor.data_ptr() < stop for start, stop in spans)
    first = held[0]
    assert isinstance(first, np.ndarray) and all(address(first) != start for start, _ in spans)
    view = np.frombuffer(held[3], dtype=np.uint8)
    assert not any(start <= address(view) < stop for start, stop in spans)


def test_what_was_let_go_is_used_again_and_forgotten_in_the_end() -> None:
    tensor = torch.from_numpy(buffers.take(SIZE)).view(torch.uint8)
    where = tensor.data_ptr()
    del tensor
    gc.collect()
    again = buffers.take(SIZE - 7)
    assert address(again) == where and len(again) == SIZE - 7
    del again
    for _ in range(2 * buffers.UNUSED_TAKES):
        buffers.take(5 * SIZE)
    kept = [buffers.take((6 + index) * SIZE) for index in range(2)]
    assert all(len(array) != -(-SIZE // buffers.GRAIN_BYTES) * buffers.GRAIN_BYTES for array, _ in buffers._held)
    assert len(kept) == 2
