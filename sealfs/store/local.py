"""A store in a folder of this machine (or of a network file system): needs nothing but Python.

Exists for tests, for media carried by hand, and for clusters with a shared file system.

Threading: all methods may be called from many threads. The only lock guards the table of open files and is
never held during a read. Conditional writes exclude each other across threads, processes and, where the file
system has cluster-wide flock, machines; they do not exclude unconditional writes of the same key.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path

from sealfs.errors import (
    LocalIOError,
    ObjectNotFoundError,
    ObjectSizeError,
    PreconditionFailedError,
    SealfsError,
    StoreError,
)
from sealfs.store.base import ObjectInfo, ReadableBuffer
from sealfs.store.names import check_key, check_prefix, is_key

_WORK = ".sealfs-work"  # the lock and unfinished writes: on the same file system, never listed
_STALE_SECONDS = 86400  # nobody writes one object for a day: a leftover of a killed writer
_HASHED_SIZE = 64 << 10  # up to here the etag is of the content, which survives copies and inode reuse
_MISSING = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR}
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}
# O_NONBLOCK: opening a planted FIFO must not wait for its writer.
_READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class _OpenFile:
    """An open file that is closed when nobody refers to it any more.

    An evicted file may still be in use by another thread; counting references is what CPython does anyway.
    """

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, _READ_FLAGS)
        self.status = os.fstat(self.fd)
        if not stat.S_ISREG(self.status.st_mode):
            raise OSError(errno.EISDIR, "not a regular file")

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            os.close(self.fd)


class LocalStore:
    """Objects as files below a folder, which is made by the first `put`.

    Args:
        root: The folder.
        max_open_files: How many files just read stay open for the next `read_into`. Such a file is not looked
            up again: objects read this way are written once.
    """

    def __init__(self, root: str | os.PathLike[str], *, max_open_files: int = 64) -> None:
        self._root = os.path.realpath(root)
        self._max_open_files = max_open_files
        self._open_files: OrderedDict[str, _OpenFile] = OrderedDict()
        self._open_files_lock = threading.Lock()
        self._swept = False

    @property
    def uri(self) -> str:
        """The folder as file:// address."""
        return Path(self._root).as_uri()

    def get(self, key: str, *, max_size: int) -> tuple[bytes, str]:
        """Return an object's bytes and its etag; see `ObjectStore.get`."""
        with _telling("read", key):
            file = _OpenFile(self._path(key))
            if file.status.st_size > max_size:
                raise ObjectSizeError(f"{key} has {file.status.st_size} bytes, at most {max_size} are allowed")
            data = bytearray(file.status.st_size)
            _fill(file, 0, memoryview(data), key)
            return bytes(data), _etag(file)

    def read_into(self, key: str, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset` bytes on; see `ObjectStore.read_into`."""
        try:  # no context manager here: this is the hot path of a mount
            _fill(self._open_file(key), offset, buffer.cast("B"), key)
        except OSError as error:
            raise _translated(error, "read", key) from error

    def put(self, key: str, data: ReadableBuffer, *, if_absent: bool = False, if_match: str | None = None) -> str:
        """Write an object atomically and durably, return its etag; see `ObjectStore.put`."""
        path = self._path(key)
        with _telling("write", key):
            self._sweep()
            _make_folders(os.path.join(self._root, _WORK))
            _make_folders(os.path.dirname(path))
            with self._written(data) as (temporary, etag):
                if if_match is not None:
                    with self._lock():
                        self._require(key, if_match)
                        os.replace(temporary, path)
                elif if_absent:
                    self._create(temporary, path)
                else:
                    os.replace(temporary, path)
            _sync_folder(os.path.dirname(path))
        self._forget(key)
        return etag

    def stat(self, key: str) -> ObjectInfo:
        """Describe one object; see `ObjectStore.stat`."""
        with _telling("look at", key):
            file = _OpenFile(self._path(key))
            return ObjectInfo(key, file.status.st_size, _etag(file), file.status.st_mtime)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield all objects whose key starts with `prefix`; see `ObjectStore.list`."""
        check_prefix(prefix)
        folder = prefix.rpartition("/")[0]
        folders = [folder + "/" if folder else ""]
        while folders:
            folder = folders.pop()
            with _telling("list", prefix):
                names, subfolders = _entries(os.path.join(self._root, folder))
            for key in (folder + name for name in names):
                if key.startswith(prefix) and is_key(key):
                    try:
                        found = self.stat(key)
                    except ObjectNotFoundError:  # deleted since
                        continue
                    yield found
            below = (folder + name for name in subfolders if is_key(folder + name) and folder + name != _WORK)
            folders += [key + "/" for key in below if key.startswith(prefix) or prefix.startswith(key + "/")]

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; see `ObjectStore.delete`."""
        for key in keys:
            with contextlib.suppress(ObjectNotFoundError), _telling("delete", key):
                os.unlink(self._path(key))
            self._forget(key)

    def has_conditional_writes(self) -> bool:
        """Whether this file system has locks; some cluster file systems are mounted without."""
        with _telling("write", "the lock file"):
            _make_folders(os.path.join(self._root, _WORK))
            try:
                with self._lock():
                    return True
            except OSError as error:
                if error.errno in _NO_LOCKS:
                    return False
                raise

    def close(self) -> None:
        """Close the files kept open."""
        with self._open_files_lock:
            self._open_files.clear()

    def _path(self, key: str) -> str:
        check_key(key)
        if key.partition("/")[0] == _WORK:
            raise StoreError(f"the object name {key!r} is reserved")
        return os.path.join(self._root, key)

    def _open_file(self, key: str) -> _OpenFile:
        with self._open_files_lock:
            file = self._open_files.get(key)
            if file is not None:
                self._open_files.move_to_end(key)
                return file
        file = _OpenFile(self._path(key))  # without the lock: a slow file system must not stop the others
        with self._open_files_lock:
            self._open_files[key] = file
            while len(self._open_files) > self._max_open_files:
                self._open_files.popitem(last=False)
        return file

    def _forget(self, key: str) -> None:
        with self._open_files_lock:
            self._open_files.pop(key, None)

    @contextlib.contextmanager
    def _written(self, data: ReadableBuffer) -> Iterator[tuple[str, str]]:
        """Give the path and etag of a synced temporary file with this content; remove what is left of it."""
        path = os.path.join(self._root, _WORK, secrets.token_hex(16))
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            try:
                rest = memoryview(data).cast("B")
                while rest:
                    rest = rest[os.write(fd, rest) :]
                os.fsync(fd)
            finally:
                os.close(fd)
            yield path, _etag(_OpenFile(path))
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def _create(self, temporary: str, path: str) -> None:
        try:
            os.link(temporary, path)
        except FileExistsError:
            raise PreconditionFailedError("the object exists already") from None
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            with self._lock():
                if os.path.lexists(path):
                    raise PreconditionFailedError("the object exists already") from None
                os.replace(temporary, path)

    def _require(self, key: str, etag: str) -> None:
        try:
            found = self.stat(key).etag
        except ObjectNotFoundError:
            found = ""
        if found != etag:
            raise PreconditionFailedError(f"{key} was changed by somebody else")

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        # Opened each time: flock then excludes other threads just as other processes.
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(os.path.join(self._root, _WORK, "lock"), flags, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _sweep(self) -> None:
        """Remove what killed writers left, once per store."""
        if self._swept:
            return
        self._swept = True
        names, _ = _entries(os.path.join(self._root, _WORK))
        for name in names:
            path = os.path.join(self._root, _WORK, name)
            with contextlib.suppress(OSError):  # tidying is a courtesy: another writer may be faster
                if name != "lock" and os.lstat(path).st_mtime < time.time() - _STALE_SECONDS:
                    os.unlink(path)


def _fill(file: _OpenFile, offset: int, rest: memoryview, key: str) -> None:
    while rest:  # the reference to `file`, not its number alone, keeps it open
        count = os.preadv(file.fd, [rest], offset)
        if count == 0:
            raise ObjectSizeError(f"{key} ends {len(rest)} bytes too early")
        offset += count
        rest = rest[count:]


def _etag(file: _OpenFile) -> str:
    status = file.status
    if status.st_size <= _HASHED_SIZE:
        return hashlib.sha256(os.pread(file.fd, _HASHED_SIZE, 0)).hexdigest()
    return f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"


def _entries(folder: str) -> tuple[list[str], list[str]]:
    """Return the names of the regular files and of the folders in a folder; links are neither."""
    files, folders = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
                elif entry.is_file(follow_symlinks=False):
                    files.append(entry.name)
    except (FileNotFoundError, NotADirectoryError):
        pass
    return files, folders


def _make_folders(folder: str) -> None:
    """Make a folder and its parents so that they survive a power cut."""
    if os.path.isdir(folder):
        return
    parent = os.path.dirname(folder)
    _make_folders(parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder)
    _sync_folder(parent)


def _sync_folder(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot, and need not
            raise
    finally:
        os.close(fd)


@contextlib.contextmanager
def _telling(deed: str, key: str) -> Iterator[None]:
    """Turn the system's errors into ours."""
    try:
        yield
    except OSError as error:
        raise _translated(error, deed, key) from error


def _translated(error: OSError, deed: str, key: str) -> SealfsError:
    what = f"cannot {deed} {key}: {os.strerror(error.errno or errno.EIO)}"
    if error.errno in _NO_ROOM:
        return LocalIOError(what, "the store's disk is full or a limit is reached: free some space")
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return StoreError(what, "check the owner and the mode of the store's folder")
    if error.errno == errno.ELOOP:
        return StoreError(f"cannot {deed} {key}: it is a symbolic link", "links in a store are not followed")
    if error.errno in _NO_LOCKS:
        return StoreError(what, "this file system has no file locks: mount it with them")
    if error.errno in _MISSING and deed != "write":
        return ObjectNotFoundError(f"there is no object {key}", "check the address of the store")
    return StoreError(what)
