"""Names: stat and its kin, links, listings, the current directory."""

from __future__ import annotations

import ctypes
import errno
import glob
import os
import pathlib
import stat
import subprocess
import sys
import tempfile
from typing import Any

from runtime.probes.cases import case, digest, refusal


def described(path: str, **how: Any) -> Any:
    s = os.stat(path, **how)
    return oct(s.st_mode), s.st_size if not stat.S_ISDIR(s.st_mode) else 0, s.st_mtime_ns, s.st_uid, s.st_gid


@case
def stats(root: str) -> Any:
    names = [
        "",
        "/bin",
        "/bin/small.bin",
        "/bin/small.bin/",
        "/bin/../bin/./small.bin",
        "/nothing",
        "/link",
        "/dangling",
        "/bin//large.bin",
        "/no/such",
        "/bin/small.bin/x",
        "/up/bin",
        "/up/link",
        "/empty",
        "/" + "x" * 256,
        "/loop",
    ]
    result = []
    for name in names:
        for follow in (True, False):
            try:
                result.append(described(root + name, follow_symlinks=follow) if name else "root")
            except OSError as error:
                result.append((name[:20], errno.errorcode[error.errno or 0]))
    return result


@case
def outside(root: str) -> Any:
    """By a symlink in the tree that leads out of it."""
    return described(f"{root}/out")


@case
def identities(root: str) -> Any:
    a, b = os.stat(f"{root}/bin/small.bin"), os.stat(f"{root}/bin/large.bin")
    with open(f"{root}/bin/small.bin", "rb") as file:
        c = os.fstat(file.fileno())
    entries = {entry.name: entry.inode() for entry in os.scandir(f"{root}/bin")}
    return (
        a.st_ino != b.st_ino,
        a.st_dev == b.st_dev,
        os.path.samestat(a, c),
        entries["small.bin"] == a.st_ino,
        os.path.samefile(f"{root}/link", f"{root}/bin/small.bin"),
        a.st_dev == os.stat(root).st_dev,
    )


@case
def access(root: str) -> Any:
    return [
        os.access(root + name, mode)
        for name in ("/bin", "/bin/small.bin", "/script", "/no", "/link", "/dangling")
        for mode in (os.F_OK, os.R_OK, os.X_OK)
    ]


@case
def links(root: str) -> Any:
    return (
        os.readlink(f"{root}/link"),
        os.readlink(f"{root}/dangling"),
        refusal(lambda: os.readlink(f"{root}/bin")),
        os.path.realpath(f"{root}/link"),
        os.path.realpath(f"{root}/bin/../up/link"),
        os.path.realpath(f"{root}/out"),
        os.path.realpath(f"{root}/dangling"),
        refusal(lambda: os.path.realpath(f"{root}/dangling", strict=True)),
        digest(pathlib.Path(f"{root}/link").read_bytes()),
        digest(pathlib.Path(f"{root}/out").read_bytes()),
        digest(pathlib.Path(f"{root}/up/link").read_bytes()),
        refusal(lambda: os.open(f"{root}/link", os.O_RDONLY | os.O_NOFOLLOW)),
        refusal(lambda: open(f"{root}/loop")),
    )


@case
def host_link(root: str) -> Any:
    """A symlink outside of the tree that leads into it."""
    with tempfile.TemporaryDirectory() as folder:
        os.symlink(root, f"{folder}/data")
        os.symlink(f"{root}/bin/small.bin", f"{folder}/file")
        os.symlink(f"{folder}/data/bin", f"{folder}/second")
        listing = os.listdir(f"{folder}/data"), os.listdir(f"{folder}/second")
        content = [
            digest(pathlib.Path(f"{folder}/{name}").read_bytes())
            for name in ("file", "data/bin/small.bin", "second/large.bin")
        ]
        here = os.open(folder, os.O_RDONLY)
        inside = os.open("data/bin/small.bin", os.O_RDONLY, dir_fd=here)
        content.append(digest(os.read(inside, 1 << 20)))
        os.close(inside)
        os.close(here)
        return (
            listing,
            content,
            os.stat(f"{folder}/file").st_size,
            os.path.realpath(f"{folder}/second/small.bin"),
            os.path.exists(f"{folder}/data/no"),
            os.path.isdir(f"{folder}/data/bin"),
            sorted(glob.glob(f"{folder}/data/*"))
            == sorted(f"{folder}/data/{name}" for name in listing[0] if not name.startswith(".")),
        )


@case
def listings(root: str) -> Any:
    walked = [(base, folders, files) for base, folders, files in os.walk(root)]
    scanned = [
        (
            e.name,
            e.is_file(follow_symlinks=False),
            e.is_dir(follow_symlinks=False),
            e.is_symlink(),
            e.stat(follow_symlinks=False).st_size if e.name != "bin" and "." in e.name else 0,
        )
        for e in os.scandir(root)
    ]
    bytes_names = os.listdir(os.fsencode(root))
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    by_fd = os.listdir(fd), os.listdir(fd), [entry.name for entry in os.scandir(fd)]
    os.close(fd)
    return (
        walked,
        scanned,
        [name.hex() for name in bytes_names],
        by_fd,
        refusal(lambda: os.listdir(f"{root}/bin/small.bin")),
    )


@case
def fwalk(root: str) -> Any:
    return [
        (base, folders, files, len(os.stat(files[0], dir_fd=fd, follow_symlinks=False)) if files else 0)
        for base, folders, files, fd in os.fwalk(root)
    ]


@case
def globs(root: str) -> Any:
    found = glob.glob(f"{root}/**", recursive=True), sorted(map(str, pathlib.Path(root).rglob("*.bin")))
    library = ctypes.CDLL(None)
    buffer = (ctypes.c_size_t * 32)()
    code = library.glob(os.fsencode(f"{root}/bin/*.bin"), 0, None, buffer)
    names = ctypes.cast(buffer[1], ctypes.POINTER(ctypes.c_char_p))
    libc = [os.fsdecode(names[i] or b"") for i in range(buffer[0])]
    return found, code, libc


@case
def relative(root: str) -> Any:
    fd = os.open(f"{root}/bin", os.O_RDONLY | os.O_DIRECTORY)
    file = os.open("small.bin", os.O_RDONLY, dir_fd=fd)
    result = [
        digest(os.read(file, 1 << 20)),
        os.stat("large.bin", dir_fd=fd).st_size,
        os.stat("../link", dir_fd=fd).st_size,
        os.readlink("../link", dir_fd=fd),
        os.access("no", os.R_OK, dir_fd=fd),
        refusal(lambda: os.read(fd, 1)),
        refusal(lambda: os.open("x", os.O_RDONLY, dir_fd=file)),
        stat.S_ISDIR(os.fstat(fd).st_mode),
    ]
    os.close(fd)
    os.close(file)
    return result


@case
def current_directory(root: str) -> Any:
    before = os.getcwd()
    try:
        os.chdir(f"{root}/bin")
        result = [
            os.getcwd(),
            os.listdir("."),
            digest(pathlib.Path("small.bin").read_bytes()),
            os.path.abspath("x"),
            os.stat("../link").st_size,
            os.path.exists("no"),
            subprocess.check_output(["pwd"], text=True),
            subprocess.check_output("cat < small.bin | wc -c; cd ..; pwd", shell=True, text=True),
            subprocess.check_output(["cat", "small.bin"])[:9].hex(),
        ]
        fd = os.open("..", os.O_RDONLY)
        os.fchdir(fd)
        os.close(fd)
        result += [os.getcwd(), os.path.isfile("bin/small.bin")]
        os.chdir("..")
        result += [os.getcwd() == os.path.dirname(root), os.path.exists(os.path.basename(root) + "/bin")]
        result += [
            subprocess.check_output(["pwd"], text=True, cwd=f"{root}/bin"),
            os.getcwd() == os.path.dirname(root),
        ]
        result += [refusal(lambda: os.chdir(f"{root}/bin/small.bin")), refusal(lambda: os.chdir(f"{root}/no"))]
        return result
    finally:
        os.chdir(before)


@case
def file_systems(root: str) -> Any:
    a, b = os.statvfs(root), os.statvfs(f"{root}/bin/small.bin")
    with open(f"{root}/bin/small.bin", "rb") as file:
        c = os.statvfs(file.fileno())
    return a.f_namemax, a.f_bsize == b.f_bsize == c.f_bsize, refusal(lambda: os.statvfs(f"{root}/no"))


@case
def attributes(root: str) -> Any:
    path = f"{root}/bin/small.bin"
    with open(path, "rb") as file:
        return (
            os.listxattr(path),
            refusal(lambda: os.getxattr(path, "user.x")),
            refusal(lambda: os.getxattr(file.fileno(), "user.x")),
            os.listxattr(file.fileno()),
            refusal(lambda: os.getxattr(f"{root}/no", "user.x")),
        )


@case
def importing(root: str) -> Any:
    sys.path.insert(0, f"{root}/code")
    sys.dont_write_bytecode = True
    try:
        import sealed_module

        return sealed_module.VALUE, sealed_module.__file__
    finally:
        del sys.path[0]
