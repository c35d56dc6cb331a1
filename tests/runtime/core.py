"""The core's C interface through ctypes: for comparing it with the Python reader."""

# ruff: noqa: E501 - tables and pieces of programs
from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

from sealfs.dataset.index import Index
from sealfs.dataset.keyring import DatasetKeys
from sealfs.enclave.attach import _Options, _PackKey


class Item(ctypes.Structure):
    _fields_ = (
        ("entry", ctypes.c_uint32),
        ("mode", ctypes.c_uint32),
        ("name", ctypes.c_void_p),
        ("length", ctypes.c_size_t),
    )


class Core:
    """A handle; errors are OSError."""

    def __init__(
        self, library: Path, objects: Path, data: bytes, keys: DatasetKeys, epochs: set[int], cache: int = 0
    ) -> None:
        self._library = ctypes.CDLL(str(library))
        for name in ("sealfs_pread", "sealfs_readlink", "sealfs_path"):
            getattr(self._library, name).restype = ctypes.c_ssize_t
        self._library.sealfs_failure.restype = ctypes.c_char_p
        self._data = (ctypes.c_uint64 * (len(data) // 8 + 1))()
        ctypes.memmove(self._data, data, len(data))
        rows = (_PackKey * max(1, len(epochs)))()
        for row, epoch in zip(rows, sorted(epochs), strict=False):
            row.epoch = epoch
            ctypes.memmove(row.key, keys.pack_key(epoch), 32)
        options = _Options(
            struct_size=ctypes.sizeof(_Options), objects_path=os.fsencode(objects), index=ctypes.addressof(self._data),
            index_size=len(data), dataset=(ctypes.c_uint8 * 16).from_buffer_copy(keys.dataset), keys=rows,
            key_count=len(epochs), cache_bytes=cache,
        )  # fmt: skip
        self._handle = ctypes.c_void_p()
        self._check(self._library.sealfs_open(ctypes.byref(options), ctypes.byref(self._handle), None, 0))

    @staticmethod
    def _check(result: int) -> int:
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return result

    def lookup(self, path: bytes) -> int:
        entry = ctypes.c_uint32()
        self._check(self._library.sealfs_lookup(self._handle, path, ctypes.byref(entry)))
        return entry.value

    def list(self, directory: int) -> Iterator[tuple[bytes, int, int]]:
        item, position = Item(), 0
        while self._check(
            self._library.sealfs_readdir(self._handle, directory, ctypes.c_uint64(position), ctypes.byref(item))
        ):
            yield ctypes.string_at(item.name, item.length), item.entry, item.mode
            position += 1

    def readlink(self, entry: int) -> bytes:
        target = ctypes.c_void_p()
        length = self._check(self._library.sealfs_readlink(self._handle, entry, ctypes.byref(target)))
        return ctypes.string_at(target.value or 0, length)

    def path(self, entry: int) -> bytes:
        buffer = ctypes.create_string_buffer(4096)
        self._check(self._library.sealfs_path(self._handle, entry, buffer, ctypes.c_size_t(4096)))
        return buffer.value

    def prepare(self, entry: int) -> None:
        self._check(self._library.sealfs_prepare(self._handle, entry))

    def pread(self, entry: int, size: int, offset: int) -> bytes:
        buffer = ctypes.create_string_buffer(max(1, size))
        count = self._library.sealfs_pread(
            self._handle, entry, buffer, ctypes.c_size_t(size), ctypes.c_uint64(offset)
        )
        return buffer.raw[: self._check(count)]

    @property
    def failure(self) -> str | None:
        text = self._library.sealfs_failure(self._handle)
        return None if text is None else text.decode()

    def close(self) -> None:
        self._library.sealfs_close(self._handle)


@contextlib.contextmanager
def opened(library: Path, store: Path, index: Index, keys: DatasetKeys, cache: int = 0) -> Iterator[Core]:
    core = Core(library, store, bytes(index.data), keys, {index.pack(n).epoch for n in range(index.packs)}, cache)
    try:
        yield core
    finally:
        core.close()
