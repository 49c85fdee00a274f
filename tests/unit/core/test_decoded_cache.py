"""The cache of decoded pictures: least recently used goes first, one decoding for threads that ask together."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests import pictures
from unmask.core.errors import BadImage
from unmask.core.pictures import DecodedCache, ImageLimits, decode


def block(value: int, size: int = 10) -> pictures.Pixels:
    """Pixels of 3 * size * size bytes."""
    return np.full((size, size, 3), value, np.uint8)


def test_the_cache_forgets_what_was_not_used_longest() -> None:
    cache, loads = DecodedCache(600), []

    def load(value: int) -> pictures.Pixels:
        loads.append(value)
        return block(value)

    for value in (1, 2, 1, 3, 1, 2):
        assert cache.get(str(value), lambda value=value: load(value))[0, 0, 0] == value  # type: ignore[misc]
    assert loads == [1, 2, 3, 2]


def test_the_cache_hands_out_read_only_and_keeps_nothing_too_large() -> None:
    cache, loads = DecodedCache(100), []

    def load() -> pictures.Pixels:
        loads.append(1)
        return block(7)

    for _ in range(2):
        pixels = cache.get("large", load)
        with pytest.raises(ValueError, match="read-only"):
            pixels[0] = 0
    assert len(loads) == 2


def test_threads_that_ask_together_decode_once() -> None:
    cache, loads, together = DecodedCache(10_000), [], threading.Barrier(8)

    def load() -> pictures.Pixels:
        time.sleep(0.05)
        loads.append(1)
        return block(1)

    def ask(_: int) -> pictures.Pixels:
        together.wait()
        return cache.get("key", load)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(8)))
    assert len(loads) == 1 and all(pixels is found[0] for pixels in found)


def test_a_failed_load_is_not_remembered() -> None:
    cache = DecodedCache(10_000)
    with pytest.raises(BadImage):
        cache.get("key", lambda: decode(b"", ImageLimits()))
    assert cache.get("key", lambda: block(3))[0, 0, 0] == 3
