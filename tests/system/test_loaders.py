"""Loaders that go on after a read error: on a mount a flipped bit ends the training, and not with exit code 0.

An EIO is not enough: measured on the originals, cv2 returns a part of an image and PaddleSeg trains on it,
PaddleClas takes another sample instead, QueueDataset and InMemoryDataset stop early, np.fromfile returns what it
has. Each script below does what they do, in few lines; the tests first show that it hides a file that was cut.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from commands import PATIENCE, Sealfs, detach, flip_bit, objects

from sealfs.keys import Identity

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="there is no /dev/fuse"),
]

# PaddleSeg's Dataset: cv2.imread, whatever it returns, through a DataLoader.
SEG = """
import os, sys
import cv2
import numpy as np
import paddle
from paddle.io import DataLoader, Dataset

class Images(Dataset):
    def __init__(self, top):
        self.paths = [os.path.join(top, name) for name in sorted(os.listdir(top))]
    def __len__(self):
        return len(self.paths)
    def __getitem__(self, index):
        image = cv2.imread(self.paths[index])
        return cv2.resize(image, (64, 64)).astype(np.float32).transpose(2, 0, 1) / 255

net = paddle.nn.Conv2D(3, 1, 3)
total = 0.0
for image in DataLoader(Images(sys.argv[1]), batch_size=1, num_workers=int(sys.argv[2])):
    total += float(net(image).mean().abs())
print("trained")
"""

# PaddleClas's ImageNetDataset.__getitem__: on any exception another sample, chosen at random.
CLAS = """
import os, sys
import numpy as np
import paddle
from paddle.io import DataLoader, Dataset
from PIL import Image

class Images(Dataset):
    def __init__(self, top):
        self.paths = [os.path.join(top, name) for name in sorted(os.listdir(top))]
    def __len__(self):
        return len(self.paths)
    def __getitem__(self, index):
        try:
            with Image.open(self.paths[index]) as image:
                return np.asarray(image.convert("RGB"), np.float32).transpose(2, 0, 1) / 255
        except Exception as error:
            print("Exception occured when parse line:", error, file=sys.stderr)
            return self[np.random.randint(len(self))]

net = paddle.nn.Conv2D(3, 1, 3)
for image in DataLoader(Images(sys.argv[1]), batch_size=4, num_workers=int(sys.argv[2])):
    float(net(image).mean())
print("trained")
"""

# PaddleRec: text parts through Paddle's own C++ feed, which starts a process with `<` for each.
QUEUE = """
import os, sys
os.environ["FLAGS_enable_pir_api"] = "0"
import numpy as np
import paddle
from paddle import static

paddle.enable_static()
top, kind, pipe = sys.argv[1:]
x, y = static.data("x", [-1, 50], "float32"), static.data("y", [-1, 1], "float32")
loss = paddle.mean(paddle.square(static.nn.fc(x, 1) - y))
seen = static.create_global_var([1], 0.0, "float32", persistable=True, name="seen")
paddle.increment(seen, 1.0)
paddle.optimizer.SGD(0.001).minimize(loss)
exe = static.Executor(paddle.CPUPlace())
exe.run(static.default_startup_program())
dataset = getattr(paddle.distributed, kind)()
dataset.init(batch_size=100, thread_num=1, use_var=[x, y], pipe_command=pipe)
dataset.set_filelist([os.path.join(top, name) for name in sorted(os.listdir(top))])
if kind == "InMemoryDataset":
    dataset.load_into_memory()
exe.train_from_dataset(static.default_main_program(), dataset)
print("batches", int(np.array(static.global_scope().find_var("seen").get_tensor())[0]))
print("trained")
"""

FROMFILE = """
import os, sys
import numpy as np
for name in sorted(os.listdir(sys.argv[1])):
    values = np.fromfile(os.path.join(sys.argv[1], name), np.float32)
    values[: len(values) // 9 * 9].reshape(-1, 9).mean()
print("trained")
"""


def make_big_images(top: Path) -> None:
    """Of more than 8 MiB each, so that an error may come in the middle."""
    cv2 = pytest.importorskip("cv2")
    for number in range(2):
        noise = np.random.default_rng(number).integers(0, 255, (2900, 2900, 3), np.uint8)
        cv2.imwrite(str(top / f"{number}.jpg"), noise, [cv2.IMWRITE_JPEG_QUALITY, 95])
        assert (top / f"{number}.jpg").stat().st_size > 8 << 20


def make_small_images(top: Path) -> None:
    from PIL import Image

    for number in range(24):
        noise = np.random.default_rng(number).integers(0, 255, (64, 64, 3), np.uint8)
        Image.fromarray(noise).save(top / f"{number:02}.jpg", quality=95)


def make_text(top: Path) -> None:
    rng = random.Random(1)
    for number in range(2):
        with (top / f"part-{number}").open("w") as file:
            for _ in range(30_000):
                file.write(f"50 {' '.join(f'{rng.random():.4f}' for _ in range(50))} 1 {rng.random():.4f}\n")
        assert (top / f"part-{number}").stat().st_size > 8 << 20


def make_arrays(top: Path) -> None:
    for number in range(2):
        np.random.default_rng(number).random(9 << 18, np.float32).tofile(top / f"{number}.bin")


@dataclass(frozen=True)
class Loader:
    """A loader, and what it reads."""

    script: str
    arguments: tuple[str, ...]
    make: Callable[[Path], None]

    def command(self, data: Path) -> list[str]:
        return [sys.executable, "-c", self.script, str(data), *self.arguments]


LOADERS = {
    "PaddleSeg": Loader(SEG, ("0",), make_big_images),
    "PaddleSeg, workers": Loader(SEG, ("2",), make_big_images),
    "PaddleClas": Loader(CLAS, ("0",), make_small_images),
    "PaddleClas, workers": Loader(CLAS, ("2",), make_small_images),
    "QueueDataset": Loader(QUEUE, ("QueueDataset", "cat"), make_text),
    "QueueDataset, python": Loader(
        QUEUE, ("QueueDataset", f"{sys.executable} -c 'import sys; sys.stdout.writelines(sys.stdin)'"), make_text
    ),
    "InMemoryDataset": Loader(QUEUE, ("InMemoryDataset", "cat"), make_text),
    "np.fromfile": Loader(FROMFILE, (), make_arrays),
}


@pytest.fixture(scope="module", params=LOADERS)
def loader(request: pytest.FixtureRequest) -> Loader:
    return LOADERS[request.param]


@pytest.fixture(scope="module")
def data(loader: Loader, tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("data")
    loader.make(top)
    return top


@pytest.fixture
def sealfs(tmp_path: Path) -> Sealfs:
    return Sealfs(tmp_path / "home", Identity.generate())


@pytest.fixture
def point(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "mnt"
    folder.mkdir()
    yield folder
    detach(folder)


def test_a_flipped_bit_ends_the_training(
    loader: Loader, data: Path, sealfs: Sealfs, point: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut"
    shutil.copytree(data, cut)
    victim = sorted(cut.iterdir())[0]
    os.truncate(victim, victim.stat().st_size // 2)
    plain = subprocess.run(
        loader.command(cut),
        env=sealfs.env,
        cwd=tmp_path,  # Paddle leaves a file there
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    assert plain.returncode == 0, plain.stderr  # this is why the mount has to be so strict
    assert "trained" in plain.stdout

    store = tmp_path / "store"
    sealfs("push", data, store)
    good = sealfs("mount", store, point, "--", *loader.command(point), cwd=tmp_path)
    assert "trained" in good.text

    for pack in objects(store, "packs"):
        flip_bit(pack, pack.stat().st_size // 4)
    bad = sealfs("mount", store, point, "--", *loader.command(point), code=5, cwd=tmp_path)
    assert "INTEGRITY FAILURE: " in bad.stderr
    assert "the workload was killed" in bad.stderr.splitlines()[-1]


def test_without_a_flipped_bit_the_numbers_are_those_of_the_plain_folder(
    sealfs: Sealfs, point: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    make_text(data)
    sealfs("push", data, tmp_path / "store")
    loader = LOADERS["QueueDataset"]
    told = [
        line
        for line in sealfs("mount", tmp_path / "store", point, "--", *loader.command(point), cwd=tmp_path).lines
        if line.startswith("batches")
    ]
    assert told == ["batches 600"]
