"""Libraries that read files in ways of their own."""

from __future__ import annotations

import pickle
from typing import Any

from runtime.probes.cases import digest, library

SUFFIXES = ("png", "jpg", "tif", "bmp")


@library("numpy")
def numpy_load(root: str, size: str) -> Any:
    import numpy as np

    result = []
    for mode in (None, "r", "c"):
        array = np.load(f"{root}/{size}.npy", mmap_mode=mode)
        result.append((str(array.dtype), array.shape, digest(np.ascontiguousarray(array).tobytes())))
    with np.load(f"{root}/{size}.npz") as archive:
        result.append([(name, digest(archive[name].tobytes())) for name in archive.files])
    return result


@library("numpy")
def numpy_fromfile(root: str, size: str) -> Any:
    import numpy as np

    path = f"{root}/{size}.bin"
    result = [
        digest(np.fromfile(path, np.uint8).tobytes()),
        digest(np.fromfile(path, np.uint8, count=1000, offset=33).tobytes()),
        digest(np.memmap(path, np.uint8, "r", 10)[:100].tobytes()),
    ]
    with open(path, "rb") as file:
        file.read(10)
        result.append(digest(np.fromfile(file, np.uint8, count=1000).tobytes()))
        result.append(digest(file.read(50)))
    return result


@library("PIL")
def pillow(root: str, size: str) -> Any:
    from PIL import Image

    result = []
    for suffix in SUFFIXES:
        with Image.open(f"{root}/{size}.{suffix}") as image:
            result.append((image.size, image.mode, digest(image.convert("RGB").tobytes())))
    return result


@library("cv2")
def opencv(root: str, size: str) -> Any:
    import cv2

    return [digest(cv2.imread(f"{root}/{size}.{suffix}").tobytes()) for suffix in SUFFIXES]


@library("tifffile")
def tifffile(root: str, size: str) -> Any:
    import tifffile as tiff

    return (
        digest(tiff.imread(f"{root}/{size}.tif").tobytes()),
        digest(tiff.memmap(f"{root}/{size}.raw.tif", mode="r").tobytes()),
    )


@library("nibabel")
def nibabel(root: str, size: str) -> Any:
    import nibabel as nib
    import numpy as np

    result = []
    for suffix in ("nii", "nii.gz"):
        image = nib.load(f"{root}/{size}.{suffix}")
        slab = np.asarray(image.dataobj[:, :, 3])  # reads or maps a part only
        result.append((image.shape, image.affine.tolist(), digest(slab.tobytes())))
        result.append(digest(image.get_fdata().tobytes()))
        result.append(digest(nib.load(f"{root}/{size}.{suffix}", mmap=False).get_fdata().tobytes()))
    return result


@library("SimpleITK")
def simpleitk(root: str, size: str) -> Any:
    import SimpleITK as sitk

    result = []
    for suffix in ("mha", "nrrd", "mhd"):
        image = sitk.ReadImage(f"{root}/{size}.{suffix}")
        result.append((image.GetSize(), image.GetSpacing(), digest(sitk.GetArrayFromImage(image).tobytes())))
    reader = sitk.ImageFileReader()
    reader.SetFileName(f"{root}/{size}.mha")
    reader.ReadImageInformation()
    reader.SetExtractIndex((1, 2, 3))
    reader.SetExtractSize((5, 6, 4))
    result.append((reader.GetSize(), digest(sitk.GetArrayFromImage(reader.Execute()).tobytes())))
    return result


@library("os")
def archives(root: str, size: str) -> Any:
    import gzip
    import tarfile
    import zipfile

    result = []
    with gzip.open(f"{root}/{size}.gz") as file:
        result.append(digest(file.read()))
    for suffix in ("tar", "tar.gz"):
        with tarfile.open(f"{root}/{size}.{suffix}") as tar:
            for member in tar:
                content = tar.extractfile(member)
                assert content is not None
                result.append((member.name, digest(content.read())))
    with zipfile.ZipFile(f"{root}/{size}.zip") as archive:
        result += [(name, digest(archive.read(name))) for name in archive.namelist()]
    return result


@library("os")
def sqlite(root: str, size: str) -> Any:
    import sqlite3

    result = []
    for options in ("mode=ro", "immutable=1", "mode=ro&cache=shared"):
        with sqlite3.connect(f"file:{root}/{size}.sqlite?{options}", uri=True) as database:
            if "immutable" in options:
                database.execute("pragma mmap_size=100000000")
            query = (
                "select count(*), sum(n), group_concat(text) from t where n < 50 or n > (select max(n) - 9 from t)"
            )
            result.append(database.execute(query).fetchall())
            result.append(database.execute("pragma quick_check").fetchall())
        database.close()
    return result


@library("pandas")
def pandas(root: str, size: str) -> Any:
    import pandas as pd

    return [
        digest(pd.read_csv(f"{root}/{size}.csv").to_numpy().tobytes()),
        digest(pd.read_csv(f"{root}/{size}.csv", memory_map=True).to_numpy().tobytes()),
        digest(pd.read_csv(f"{root}/{size}.csv", engine="python", nrows=1000).to_numpy().tobytes()),
        digest(pd.read_parquet(f"{root}/{size}.parquet").to_numpy().tobytes()),
    ]


@library("pyarrow")
def pyarrow(root: str, size: str) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pa.memory_map(f"{root}/{size}.bin") as mapped, pa.OSFile(f"{root}/{size}.bin") as file:
        parts = digest(mapped.read()), digest(file.read())
    tables = [pq.read_table(f"{root}/{size}.parquet", memory_map=mapped) for mapped in (False, True)]
    return parts, [digest(table["b"].to_numpy().tobytes()) for table in tables]


@library("h5py")
def hdf5(root: str, size: str) -> Any:
    import h5py

    with h5py.File(f"{root}/{size}.h5", "r") as file:
        parts = (
            digest(file["x"][:].tobytes()),
            digest(file["x"][5:9].tobytes()),
            digest(file["chunks"][:].tobytes()),
        )
    with h5py.File(f"{root}/{size}.h5", "r", driver="core", backing_store=False) as file:
        return parts, digest(file["x"][:].tobytes())


@library("lmdb")
def lmdb(root: str, size: str) -> Any:
    import lmdb as database

    with (
        database.open(f"{root}/{size}.lmdb", readonly=True, lock=False) as environment,
        environment.begin() as transaction,
    ):
        return [(key, digest(value)) for key, value in transaction.cursor()]


@library("safetensors")
def safetensors(root: str, size: str) -> Any:
    from safetensors import safe_open
    from safetensors.numpy import load_file

    with safe_open(f"{root}/{size}.safetensors", framework="numpy") as file:
        parts = [(name, digest(file.get_tensor(name).tobytes())) for name in sorted(file.keys())]
    whole = load_file(f"{root}/{size}.safetensors")
    return parts, [(name, digest(whole[name].tobytes())) for name in sorted(whole)]


@library("os")
def pickles(root: str, size: str) -> Any:
    with open(f"{root}/{size}.pickle", "rb") as file:
        return digest(repr(pickle.load(file)).encode())
