"""Changing things: only sealed files refuse these, so the plain run says what is expected."""

# ruff: noqa: SIM115 - tables and pieces of programs; files are left open on purpose
from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

from runtime.probes.cases import CASES, refusal


def read_only(root: str) -> Any:
    file, folder, new = f"{root}/bin/small.bin", f"{root}/bin", f"{root}/bin/new"
    changes: list[Callable[[], Any]] = [
        lambda: open(file, "wb"),
        lambda: open(file, "r+b"),
        lambda: open(file, "ab"),
        lambda: open(new, "wb"),
        lambda: os.open(file, os.O_RDONLY | os.O_TRUNC),
        lambda: os.open(root, os.O_TMPFILE | os.O_RDWR),
        lambda: os.unlink(file),
        lambda: os.rmdir(f"{root}/empty"),
        lambda: os.mkdir(new),
        lambda: os.rename(file, new),
        lambda: os.symlink("x", new),
        lambda: os.chmod(file, 0o600),
        lambda: os.chown(file, 1, 1),
        lambda: os.utime(file),
        lambda: os.truncate(file, 0),
        lambda: os.mkfifo(new),
        lambda: os.mknod(new),
        lambda: os.setxattr(file, "user.x", b"1"),
        lambda: os.removexattr(file, "user.x"),
        lambda: os.rename(folder, f"{root}/other"),
        lambda: os.link(file, new),
        lambda: tempfile.TemporaryFile(dir=None) and os.open(f"{root}/x", os.O_CREAT | os.O_WRONLY),
    ]
    result = [refusal(change) for change in changes]
    result += [
        refusal(lambda: os.mkdir(folder)),
        refusal(lambda: os.open(file, os.O_CREAT | os.O_EXCL)),
        refusal(lambda: open(folder, "wb")),
        refusal(lambda: os.rename(file, "/tmp/elsewhere")),
        refusal(lambda: os.mkdir(f"{root}/no/such")),
        os.access(file, os.W_OK),
    ]
    return result


def read_only_by_link(root: str) -> Any:
    """By a symlink that leads into the tree."""
    with tempfile.TemporaryDirectory() as outside:
        os.symlink(root, f"{outside}/data")
        return [
            refusal(lambda: open(f"{outside}/data/new", "w")),
            refusal(lambda: os.mkdir(f"{outside}/data/new")),
            refusal(lambda: os.rename(f"{outside}/data/bin", f"{outside}/data/x")),
            refusal(lambda: open(f"{outside}/data/bin/new", "w")),
            refusal(lambda: shutil.copy(f"{root}/bin/small.bin", f"{outside}/data/new")),
            refusal(lambda: os.unlink(f"{outside}/data/link")),
        ]


def expected_of(changes: Callable[[str], Any], expected: list[Any]) -> None:
    CASES[changes.__name__] = lambda root: changes(root) if os.environ.get("PROBE_SEALED") else expected


expected_of(read_only, ["EROFS"] * 22 + ["EEXIST", "EEXIST", "EISDIR", "EXDEV", "ENOENT", False])
expected_of(read_only_by_link, ["EROFS"] * 6)
