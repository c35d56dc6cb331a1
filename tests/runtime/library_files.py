"""Files in the formats that training scripts read, each small and larger than what is authenticated whole.

What a library is missing for is left out, and its cases with it (probes/cases.py, NEEDS).
"""

from __future__ import annotations

import gzip
import importlib
import pickle
import random
import sqlite3
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

COUNTS = {"small": 500, "large": (9 << 20) // 8}  # of floats


def optional(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def make_library_files(top: Path) -> None:
    """Write everything; the same bytes each time where the format has no clock in it."""
    top.mkdir(parents=True)
    rng = np.random.default_rng(2)
    for size, count in COUNTS.items():
        array = rng.random(count)
        _numpy_files(top, size, array)
        _archives(top, size, array.tobytes())
        _tables(top, size, array)
        _pictures(top, size, rng)
        _volumes(top, size, rng)
    _lmdb(top, rng)


def _numpy_files(top: Path, size: str, array: np.ndarray) -> None:
    np.save(top / f"{size}.npy", array)
    np.savez(top / f"{size}.npz", a=array, b=array[:10])
    (top / f"{size}.bin").write_bytes(array.tobytes())
    (top / f"{size}.pickle").write_bytes(pickle.dumps(list(range(len(array)))))
    if safetensors := optional("safetensors.numpy"):
        safetensors.save_file({"w": array, "b": array[:10]}, top / f"{size}.safetensors")


def _archives(top: Path, size: str, data: bytes) -> None:
    with gzip.open(top / f"{size}.gz", "wb", compresslevel=1) as packed:
        packed.write(data)
    with (
        tarfile.open(top / f"{size}.tar", "w") as plain,
        tarfile.open(top / f"{size}.tar.gz", "w:gz", compresslevel=1) as tar,
        zipfile.ZipFile(top / f"{size}.zip", "w") as archive,
    ):
        for name in (f"{size}.npy", f"{size}.bin"):
            plain.add(top / name, name)
            tar.add(top / name, name)
            archive.write(top / name, name)


def _tables(top: Path, size: str, array: np.ndarray) -> None:
    rows = len(array) // 4
    database = sqlite3.connect(top / f"{size}.sqlite")
    database.execute("create table t (n integer, text text)")
    database.executemany("insert into t values (?, ?)", ((n, str(n) * 8) for n in range(rows)))
    database.commit()
    database.close()
    with (top / f"{size}.csv").open("w") as file:
        generator = random.Random(1)
        file.write("a,b\n")
        file.writelines(f"{n},{generator.random()},{generator.random()}\n" for n in range(rows))
    if (pandas := optional("pandas")) and optional("pyarrow"):
        pandas.DataFrame({"a": range(len(array)), "b": array}).to_parquet(top / f"{size}.parquet")
    if h5py := optional("h5py"):
        with h5py.File(top / f"{size}.h5", "w") as file:
            file["x"] = array.reshape(-1, 4)
            file.create_dataset("chunks", data=array, chunks=(500,), compression=1)


def _pictures(top: Path, size: str, rng: np.random.Generator) -> None:
    side = 64 if size == "small" else 1900
    pixels = rng.integers(0, 255, (side, side, 3), np.uint8)
    picture = Image.fromarray(pixels)
    picture.save(top / f"{size}.png", compress_level=1)
    picture.save(top / f"{size}.jpg", quality=100, subsampling=0)
    picture.save(top / f"{size}.tif")
    picture.save(top / f"{size}.bmp")
    if tifffile := optional("tifffile"):
        tifffile.imwrite(top / f"{size}.raw.tif", pixels[:, :, 0].repeat(3, axis=0))


def _volumes(top: Path, size: str, rng: np.random.Generator) -> None:
    """Medical images."""
    side = 12 if size == "small" else 176
    volume = rng.integers(0, 4096, (side, side, side), np.int16)
    if nibabel := optional("nibabel"):
        image = nibabel.Nifti1Image(volume, np.diag([1, 2, 3, 1]))
        nibabel.save(image, top / f"{size}.nii")
        nibabel.save(image, top / f"{size}.nii.gz")
    if sitk := optional("SimpleITK"):
        image = sitk.GetImageFromArray(volume)
        image.SetSpacing((0.5, 1.0, 2.0))
        for suffix in ("mha", "nrrd", "mhd"):  # the last one is two files
            sitk.WriteImage(image, str(top / f"{size}.{suffix}"))


def _lmdb(top: Path, rng: np.random.Generator) -> None:
    if lmdb := optional("lmdb"):
        for size, count in (("small", 50), ("large", 1000)):
            path = str(top / f"{size}.lmdb")
            with lmdb.open(path, map_size=1 << 40) as environment, environment.begin(write=True) as writing:
                for number in range(count):
                    writing.put(b"%05d" % number, rng.bytes(10_000))
