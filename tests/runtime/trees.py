"""Files of all the kinds that training scripts open."""

from __future__ import annotations

import gzip
import importlib
import os
import pickle
import random
import sqlite3
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

LARGE = 11 << 20  # more than is authenticated whole


def optional(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def make_tree(top: Path) -> None:
    rng = np.random.default_rng(1)
    for folder in ("bin", "np", "pictures", "archives", "tables", "code", "empty", "many/deep/er"):
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
    for size, count in (("small", 500), ("large", LARGE // 8)):
        array = rng.random(count)
        np.save(top / f"np/{size}.npy", array)
        np.savez(top / f"np/{size}.npz", a=array, b=array[:10])
    picture = Image.fromarray(rng.integers(0, 255, (64, 48, 3), np.uint8))
    for suffix in ("png", "jpg", "tif", "bmp"):
        picture.save(top / f"pictures/picture.{suffix}")
    with gzip.open(top / "archives/a.gz", "wb") as packed:
        packed.write(rng.bytes(100_000))
    with (
        tarfile.open(top / "archives/a.tar.gz", "w:gz") as tar,
        zipfile.ZipFile(top / "archives/a.zip", "w") as archive,
    ):
        for name in ("text", "bin/small.bin"):
            tar.add(top / name, name)
            archive.write(top / name, name)
    (top / "tables/a.pickle").write_bytes(pickle.dumps(list(range(1000))))
    (top / "code/sealed_module.py").write_text("VALUE = 'from a sealed file'\n")
    database = sqlite3.connect(top / "tables/a.sqlite")
    database.execute("create table t (n integer, text text)")
    database.executemany("insert into t values (?, ?)", [(n, str(n) * 50) for n in range(5000)])
    database.commit()
    database.close()
    (top / "tables/a.csv").write_text("a,b\n" + "".join(f"{n},{random.Random(n).random()}\n" for n in range(3000)))
    _make_optional(top, rng)


def _make_optional(top: Path, rng: np.random.Generator) -> None:
    if (pandas := optional("pandas")) and optional("pyarrow"):
        pandas.DataFrame({"a": range(1000), "b": rng.random(1000)}).to_parquet(top / "tables/a.parquet")
    if h5py := optional("h5py"):
        with h5py.File(top / "tables/a.h5", "w") as file:
            file["x"] = rng.random((100, 50))
    if lmdb := optional("lmdb"):
        with (
            lmdb.open(str(top / "lmdb"), map_size=1 << 20) as environment,
            environment.begin(write=True) as writing,
        ):
            for number in range(50):
                writing.put(b"%03d" % number, rng.bytes(100))
    if safetensors := optional("safetensors.numpy"):
        safetensors.save_file({"w": rng.random((10, 10)), "b": rng.random(10)}, top / "tables/a.safetensors")
    if tifffile := optional("tifffile"):
        tifffile.imwrite(top / "pictures/raw.tif", rng.integers(0, 255, (32, 32), np.uint8))
