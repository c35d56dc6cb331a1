"""A folder with everything that a folder can have and that has ever been got wrong."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

WHOLE_FILE_LIMIT = 8 << 20  # what the command line's help promises
SEGMENT = (64 << 10) - 32  # plaintext bytes of one segment, the default
SIZES = (
    *(0, 1, 4095, 4096, 4097),
    *(SEGMENT - 1, SEGMENT, SEGMENT + 1, 5 * SEGMENT),
    *((1 << 20) - 1, 1 << 20, (1 << 20) + 1),  # the kernel's largest request
    *(WHOLE_FILE_LIMIT, WHOLE_FILE_LIMIT + 1),
)
BIG = (40 << 20) + 7  # more than one pack
ODD_NAMES = (
    b"space and 'quotes\"",
    b"new\nline",
    b"tab\tand\x07bell",
    "Bücher-網絡-🩺".encode(),
    b"not-utf-8-\xff\xfe",
    b"back\\slash",
    b"-rf",
    b"*?[x]",
    b"#hash@3",
    b"x" * 255,
)
CROWD = 20_000


def build(top: Path) -> None:
    """Make it."""
    top.mkdir()
    random_bytes = random.Random(7).randbytes
    for name, sizes in {"sizes": SIZES, "big": [BIG]}.items():
        (top / name).mkdir()
        for size in sizes:
            (top / name / str(size)).write_bytes(random_bytes(size))
    odd = os.fsencode(top / "odd")
    os.mkdir(odd)
    for name in ODD_NAMES:
        with open(odd + b"/" + name, "wb") as file:
            file.write(b"I am " + name)
    (top / "empty").mkdir()
    deep = top.joinpath(*["deep"] * 60)
    deep.mkdir(parents=True)
    (deep / "treasure").write_text("found")
    _links(top)
    _modes_and_times(top)
    with (top / "sparse").open("wb") as file:
        file.truncate(300 << 20)
        file.seek(100 << 20)
        file.write(b"an island")
    crowd = top / "crowd"
    crowd.mkdir()
    for number in random.Random(3).sample(range(CROWD), CROWD):
        (crowd / f"{number:05}.txt").touch()
    (crowd / "00007.txt").write_text("seven")


def _links(top: Path) -> None:
    links = top / "links"
    links.mkdir()
    (links / "to-file").symlink_to("../sizes/4096")
    (links / "to-folder").symlink_to("../sizes")
    (links / "dangling").symlink_to("/nowhere/at all")
    (links / "loop").symlink_to("loop")
    os.symlink(b"\xff\n", os.fsencode(links) + b"/odd-target")
    os.symlink("y" * 4000, links / "long-target")
    (links / "hard-1").write_text("one file, two names")
    os.link(links / "hard-1", links / "hard-2")


def _modes_and_times(top: Path) -> None:
    modes = top / "modes"
    modes.mkdir()
    for mode in (0o000, 0o444, 0o600, 0o755, 0o4755, 0o2755, 0o666):
        (modes / f"{mode:04o}").write_text("x")
        (modes / f"{mode:04o}").chmod(mode)
    (modes / "sticky").mkdir()
    (modes / "sticky").chmod(0o1777)
    times = top / "times"
    times.mkdir()
    for nanoseconds in (0, 1, -1, -(10**18), 999_999_999, 4_102_444_800 * 10**9 + 5, 1_700_000_000_123_456_789):
        (times / str(nanoseconds)).touch()
        os.utime(times / str(nanoseconds), ns=(0, nanoseconds))
    os.utime(times, ns=(0, 10**18 + 1))


@dataclass(frozen=True)
class Seen:
    """What a user sees of one path; everything but its content."""

    mode: int
    size: int
    mtime_ns: int
    target: bytes


def walk(top: Path) -> Iterator[tuple[bytes, os.stat_result]]:
    """Yield paths below `top` in the order in which folders list."""
    pending = [b""]
    while pending:
        folder = pending.pop()
        for name in os.listdir(os.path.join(os.fsencode(top), folder)):
            path = os.path.join(folder, name)
            status = os.lstat(os.path.join(os.fsencode(top), path))
            if status.st_mode & 0o170000 == 0o040000:
                pending.append(path)
            yield path, status


def described(top: Path) -> dict[bytes, Seen]:
    """Everything below `top`, in the order in which folders list."""
    found = {}
    for path, status in walk(top):
        is_link = status.st_mode & 0o170000 == 0o120000
        target = os.readlink(os.path.join(os.fsencode(top), path)) if is_link else b""
        is_folder = status.st_mode & 0o170000 == 0o040000
        size = 0 if is_folder else status.st_size  # a folder's depends on the file system
        found[path] = Seen(status.st_mode, size, status.st_mtime_ns, target)
    return found
