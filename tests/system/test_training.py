"""The point of it all: an unmodified Paddle script prints the same numbers on the mount as on the plain folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import PATIENCE, Sealfs, detach, flip_bit, mounted, objects
from servers import moto_server

from sealfs.keys import Identity

EXAMPLES = Path(__file__).parents[2] / "examples"
BUCKET = "training"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="there is no /dev/fuse"),
]


def example(script: str, *arguments: object) -> list[str]:
    return [sys.executable, str(EXAMPLES / script), *map(str, arguments)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("training") / "data"
    command = example("make_vessels.py", folder, "--count", 16, "--size", 64)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=PATIENCE)
    return folder


@pytest.fixture(scope="module", params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Sealfs]]:
    """An address, and who can reach it."""
    home = tmp_path_factory.mktemp("user")
    if request.param == "local":
        yield str(home / "store"), Sealfs(home, Identity.generate())
        return
    with moto_server() as server:
        server.create_bucket(BUCKET)
        yield f"s3://{BUCKET}/vessels", Sealfs(home, Identity.generate(), **server.environment())


@pytest.mark.parametrize("workers", [0, 2])
def test_same_losses(place: tuple[str, Sealfs], data: Path, tmp_path: Path, workers: int) -> None:
    uri, sealfs = place
    sealfs("push", data, uri)

    def losses(folder: Path) -> list[str]:
        command = example("train_segmentation.py", folder, "--epochs", 2, "--workers", workers)
        done = subprocess.run(command, env=sealfs.env, check=True, stdout=subprocess.PIPE, timeout=2 * PATIENCE)
        return done.stdout.decode().splitlines()

    expected = losses(data)
    assert [line.split()[0] for line in expected] == ["epoch", "epoch", "dice"]
    with mounted(sealfs, uri, tmp_path / "mnt") as here:
        assert losses(here.path) == expected
        assert here.status()["bytes_read"] > 0
        assert here.status()["errors"] == 0


def test_a_flipped_bit_ends_it(data: Path, tmp_path: Path) -> None:
    sealfs, point = Sealfs(tmp_path / "home", Identity.generate()), tmp_path / "mnt"
    point.mkdir()
    sealfs("push", data, tmp_path / "store")
    for pack in objects(tmp_path / "store", "packs"):
        flip_bit(pack, pack.stat().st_size // 2)
    command = example("train_segmentation.py", point, "--epochs", 1)
    try:
        outcome = sealfs("mount", tmp_path / "store", point, "--", *command, code=5)
        assert "epoch 1" not in outcome.text
    finally:
        detach(point)
