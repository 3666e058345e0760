from __future__ import annotations

import gc
import threading

import numpy as np
import torch

from pwm.data.windows.batch import BufferPool


def address(buffer: np.ndarray) -> int:
    return buffer.ctypes.data


def test_a_buffer_is_used_again_when_nothing_refers_to_it():
    pool = BufferPool()
    buffer = pool.take(1000)
    first = address(buffer)
    assert len(buffer) == 1000
    for size in (1000, 10, 1000):
        del buffer
        buffer = pool.take(size)
        assert address(buffer) == first
        assert len(buffer) == size


def test_views_and_tensors_keep_a_buffer_in_use():
    pool = BufferPool()
    tensor = torch.from_numpy(pool.take(800).view(np.float32)[10:20].reshape(2, 5))
    tensor.fill_(7)
    gc.collect()
    first = tensor.data_ptr() - 40
    assert first % 64 == 0, "aligned"
    other = pool.take(800)
    other[:] = 1
    assert address(other) != first
    assert (tensor == 7).all()
    del tensor
    gc.collect()
    assert address(pool.take(800)) == first


def test_given_blocks_come_first_and_small_ones_are_replaced():
    block = np.zeros(200, np.uint8)
    pool = BufferPool([block])
    inside = range(address(block), address(block) + 200)
    assert address(pool.take(100)) in inside
    assert address(pool.take(300)) not in inside
    assert len(pool.take(300)) == 300


def test_threads_never_share_a_buffer():
    pool = BufferPool()
    wrong = []

    def work(number: int) -> None:
        for _ in range(300):
            buffer = pool.take(4096)
            buffer[:] = number
            if (buffer != number).any():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
