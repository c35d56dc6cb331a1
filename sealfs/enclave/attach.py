"""Attaches a sealed dataset inside this process: a thin binding of runtime/include/sealfs.h.

The library must have been preloaded (LD_PRELOAD) when the process started; `launch.py` sees to that. Afterwards the
dataset is an ordinary read-only folder for everything that calls libc, here and in child processes.

Threading: attach before other threads use the path.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from sealfs.dataset.dataset import Dataset
from sealfs.dataset.index import Index
from sealfs.dataset.keyring import DATASET_ID_SIZE, DatasetKeys
from sealfs.dataset.union import Member, merge, pack_keys
from sealfs.errors import IntegrityError, MountError
from sealfs.floe import KEY_SIZE

LIBRARY = Path(__file__).with_name("libsealfs.so")
INTEGRITY_EXIT = 85  # SEALFS_EXIT_INTEGRITY: of a process in which damage was found
_MESSAGE_SIZE = 512
_MAX_PATH = 4096  # SEALFS_MAX_PATH
_REAL_FILES = 1


class _PackKey(ctypes.Structure):
    _fields_ = (("epoch", ctypes.c_uint32), ("source", ctypes.c_uint32), ("key", ctypes.c_uint8 * KEY_SIZE))


class _Source(ctypes.Structure):
    _fields_ = (("dataset", ctypes.c_uint8 * DATASET_ID_SIZE), ("objects_path", ctypes.c_char * _MAX_PATH))


class _Options(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("mount_path", ctypes.c_char_p),
        ("objects_path", ctypes.c_char_p),
        ("index", ctypes.c_void_p),
        ("index_size", ctypes.c_size_t),
        ("dataset", ctypes.c_uint8 * DATASET_ID_SIZE),
        ("keys", ctypes.POINTER(_PackKey)),
        ("key_count", ctypes.c_size_t),
        ("cache_bytes", ctypes.c_uint64),
        ("whole_file_limit", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("source_count", ctypes.c_uint32),
        ("sources", ctypes.POINTER(_Source)),
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """How a dataset is served.

    Attributes:
        cache_size: Bytes of decrypted segments to keep; 0 for the library's default.
        whole_file_limit: Files up to so many bytes are authenticated when they are opened; 0 for the default.
        real_files: Give out files of the kernel with the decrypted bytes, for programs that need one.
    """

    cache_size: int = 0
    whole_file_limit: int = 0
    real_files: bool = False


def is_preloaded() -> bool:
    """Whether this process was started with the library."""
    return hasattr(ctypes.CDLL(None), "sealfs_attach")


def attach(
    mount_path: str | os.PathLike[str],
    objects: str | os.PathLike[str],
    index: Index,
    keys: DatasetKeys,
    settings: Settings | None = None,
) -> None:
    """Serve a dataset at a path of this process.

    Args:
        mount_path: An existing empty folder.
        objects: The folder that holds `packs/`.
        index: The verified path table; copied.
        keys: The dataset's keys.
        settings: See `Settings`.

    Raises:
        MountError: Not preloaded, or the path is unfit.
        IntegrityError: The index is malformed.
    """
    epochs = {index.pack(number).epoch for number in range(index.packs)}
    _attach(
        mount_path,
        os.fsencode(objects),
        index,
        keys.dataset,
        ((epoch, 0, keys.pack_key(epoch)) for epoch in sorted(epochs)),
        len(epochs),
        (),
        settings or Settings(),
    )


def attach_union(
    mount_path: str | os.PathLike[str],
    objects: Sequence[str | os.PathLike[str]],
    members: Sequence[Member],
    settings: Settings | None = None,
) -> None:
    """Serve several datasets as one folder at a path of this process.

    Args:
        mount_path: An existing empty folder.
        objects: For each member, the folder that holds its `packs/`.
        members: The datasets.
        settings: See `Settings`.

    Raises:
        UsageError: Their names clash.
        MountError: Not preloaded, or the path is unfit.
        IntegrityError: An index is malformed.
    """
    union = merge(members)
    sources = [(member.keys.dataset, os.fsencode(folder)) for member, folder in zip(members, objects, strict=True)]
    keys = ((epoch, place + 1, key) for epoch, place, key in pack_keys(union, members))
    count = len(union.epochs)
    _attach(mount_path, sources[0][1], union.index, union.dataset, keys, count, sources, settings or Settings())


def _attach(
    mount_path: str | os.PathLike[str],
    objects: bytes,
    index: Index,
    dataset: bytes,
    keys: Iterable[tuple[int, int, bytes]],
    key_count: int,
    sources: Sequence[tuple[bytes, bytes]],
    settings: Settings,
) -> None:
    if not is_preloaded():
        raise MountError("libsealfs.so is not preloaded", "start the program with: python -m sealfs.enclave.launch")
    if any(len(folder) >= _MAX_PATH for _, folder in sources):
        raise MountError("the path of a folder of objects is too long", f"{_MAX_PATH} bytes are the most")
    table = (_PackKey * max(1, key_count))()
    places = (_Source * max(1, len(sources)))()
    for place, (member, folder) in zip(places, sources, strict=False):
        place.dataset = (ctypes.c_uint8 * DATASET_ID_SIZE).from_buffer_copy(member)
        place.objects_path = folder
    data = (ctypes.c_uint8 * len(index.data)).from_buffer_copy(index.data)
    try:
        for row, (epoch, source, key) in zip(table, keys, strict=False):
            row.epoch, row.source = epoch, source
            ctypes.memmove(row.key, key, KEY_SIZE)
        options = _Options(
            struct_size=ctypes.sizeof(_Options),
            mount_path=os.fsencode(mount_path),
            objects_path=objects,
            index=ctypes.addressof(data),
            index_size=len(index.data),
            dataset=(ctypes.c_uint8 * DATASET_ID_SIZE).from_buffer_copy(dataset),
            keys=table,
            key_count=key_count,
            cache_bytes=settings.cache_size,
            whole_file_limit=settings.whole_file_limit,
            flags=_REAL_FILES if settings.real_files else 0,
            source_count=len(sources),
            sources=places,
        )
        _call(options)
    finally:
        ctypes.memset(table, 0, ctypes.sizeof(table))


def _call(options: _Options) -> None:
    message = ctypes.create_string_buffer(_MESSAGE_SIZE)
    function = ctypes.CDLL(None).sealfs_attach
    function.argtypes = (ctypes.POINTER(_Options), ctypes.c_char_p, ctypes.c_size_t)
    function.restype = ctypes.c_int
    error = -function(ctypes.byref(options), message, len(message))
    if error == 0:
        return
    text = message.value.decode("utf-8", "backslashreplace") or os.strerror(error)
    if error == IntegrityError.errno:
        raise IntegrityError(text)
    raise MountError(f"cannot attach the dataset: {text}", os.strerror(error))


def attach_dataset(
    mount_path: str | os.PathLike[str], dataset: Dataset, keys: DatasetKeys, settings: Settings | None = None
) -> None:
    """Serve a verified dataset whose objects lie in a folder of this machine (see `attach`).

    Raises:
        MountError: Its store is no local folder.
    """
    attach(mount_path, objects_folder(dataset), dataset.index(keys), keys, settings)


def objects_folder(dataset: Dataset) -> str:
    """Return the folder that a dataset's objects lie in.

    Raises:
        MountError: Its store is no local folder.
    """
    scheme, _, folder = dataset.store.uri.partition("://")
    if scheme != "file":
        raise MountError("only a dataset in a local folder can be attached", "fetch or mount its objects first")
    return unquote(folder)
