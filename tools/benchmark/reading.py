"""Ways to read files and what limits them, in bytes, reads or files per second."""

from __future__ import annotations

import mmap
import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from benchmark.common import MIB, RANDOM_SIZE, SEGMENT, SMALL_SIZE, BenchError


def read_through(path: Path) -> float:
    """Read a file from start to end in pieces of 1 MiB into one buffer; return bytes per second.

    The buffer begins with a page. Where it begins counts: at 16 bytes after that, where `malloc` puts large ones,
    some processors (AMD's Zen 3) copy from the page cache at a fifth of the speed.
    """
    buffer = mmap.mmap(-1, MIB)
    fd = os.open(path, os.O_RDONLY)
    try:
        offset, began = 0, time.perf_counter()
        while count := os.preadv(fd, [buffer], offset):
            offset += count
        return offset / (time.perf_counter() - began)
    finally:
        os.close(fd)


def read_whole(path: Path) -> float:
    """Read a file in one piece into new memory, as `file.read()` and array loaders do; return bytes per second."""
    began = time.perf_counter()
    content = path.read_bytes()
    return len(content) / (time.perf_counter() - began)


def read_at_random(path: Path, reads: int, seed: int) -> float:
    """Read 4 KiB at random offsets; return reads per second."""
    buffer = memoryview(bytearray(RANDOM_SIZE))
    pages = path.stat().st_size // RANDOM_SIZE
    offsets = [RANDOM_SIZE * page for page in random.Random(seed).sample(range(pages), reads)]
    fd = os.open(path, os.O_RDONLY)
    try:
        began = time.perf_counter()
        for offset in offsets:
            if os.preadv(fd, [buffer], offset) != RANDOM_SIZE:
                raise BenchError(f"a short read from {path}")
        return reads / (time.perf_counter() - began)
    finally:
        os.close(fd)


def read_files(paths: Sequence[str], size: int = SMALL_SIZE) -> float:
    """Open, read and close each file; return files per second."""
    buffer = memoryview(bytearray(size + 1))
    began = time.perf_counter()
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        count = os.readv(fd, [buffer])
        os.close(fd)
        if count != size:
            raise BenchError(f"a short read from {path}")
    return len(paths) / (time.perf_counter() - began)


def physical_limits() -> dict[str, float]:
    """Measure what no arrangement can exceed, in bytes per second on one core: best of several."""
    key, nonce, data = AESGCM(AESGCM.generate_key(256)), bytes(12), os.urandom(SEGMENT)
    sealed, out = key.encrypt(nonce, data, None), bytearray(SEGMENT)
    source, target = memoryview(bytearray(64 * MIB)), memoryview(bytearray(64 * MIB))

    def decrypt() -> int:
        for _ in range(64):
            key.decrypt_into(nonce, sealed, None, out)
        return 64 * SEGMENT

    def move() -> int:
        target[:] = source
        return len(source)

    def best(deed: Callable[[], int]) -> float:
        rates = []
        for _ in range(20):
            began = time.perf_counter()
            rates.append(deed() / (time.perf_counter() - began))
        return max(rates)

    return {"aes_256_gcm": best(decrypt), "memcpy": best(move)}
