"""A folder with a bit of everything that a file system has. What libraries read is in library_files.py."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

LARGE = 11 << 20  # more than is authenticated whole


def make_tree(top: Path) -> None:
    rng = np.random.default_rng(1)
    for folder in ("bin", "code", "empty", "many/deep/er"):
        (top / folder).mkdir(parents=True)
    (top / "bin/small.bin").write_bytes(rng.bytes(5000))
    (top / "bin/large.bin").write_bytes(rng.bytes(LARGE))
    (top / "nothing").touch()
    (top / "text").write_text("".join(f"line {number} of the text\n" for number in range(2000)))
    (top / "script").write_text("#!/bin/sh\necho script $#\n")
    (top / "script").chmod(0o755)
    for number in range(120):
        (top / f"many/{number:03}.bin").write_bytes(rng.bytes(100 * number))
    (top / "many/deep/er/file").write_bytes(b"deep")
    Path(os.fsdecode(os.path.join(os.fsencode(top), b"odd \xff\xfe\nname"))).write_bytes(b"odd")
    (top / "link").symlink_to("bin/small.bin")
    (top / "up").symlink_to("bin/..")
    (top / "dangling").symlink_to("no/such/thing")
    (top / "loop").symlink_to("loop")
    (top / "out").symlink_to("/etc/passwd")
    with (top / "sparse").open("wb") as file:
        file.truncate(3 << 20)
        file.seek(2 << 20)
        file.write(b"data between holes")
    (top / "code/sealed_module.py").write_text("VALUE = 'from a sealed file'\n")
