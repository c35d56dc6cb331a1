"""What fuzz tests of documents do to bytes."""

from __future__ import annotations

import random
from collections.abc import Iterator


def mutated(valid: bytes, seed: str, count: int = 300) -> Iterator[bytes]:
    """Yield a document with one to three places changed, cut or filled: the same ones for the same seed."""
    dice = random.Random(seed)
    for _ in range(count):
        data = bytearray(valid)
        for _ in range(dice.randint(1, 3)):
            place = dice.randrange(len(data))
            data[place : place + dice.choice((0, 1, 1, 1, 20))] = dice.randbytes(dice.choice((0, 1, 1, 3)))
        yield bytes(data)
