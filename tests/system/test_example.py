"""The example must itself give the same numbers twice, or the demo's comparison would prove nothing."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(script: str, *args: object) -> str:
    command = [sys.executable, EXAMPLES / script, *map(str, args)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=120).stdout


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("example") / "data"
    run("make_vessels.py", folder, "--count", 6, "--size", 64)
    return folder


def test_same_seed_gives_same_images(data: Path, tmp_path: Path) -> None:
    run("make_vessels.py", tmp_path, "--count", 2, "--size", 64)
    for path in ("images/001.png", "masks/001.png"):
        assert (tmp_path / path).read_bytes() == (data / path).read_bytes()


def test_masks_mark_some_pixels_as_vessels(data: Path) -> None:
    with Image.open(data / "masks" / "000.png") as mask:
        black, *between, white = mask.convert("L").histogram()
    assert not any(between)
    assert 0.02 < white / (black + white) < 0.4


def test_training_prints_the_same_numbers_twice(data: Path, tmp_path: Path) -> None:
    first = run("train_segmentation.py", data, "--epochs", 2, "--picture", tmp_path / "picture.png")
    second = run("train_segmentation.py", data, "--epochs", 2, "--save", tmp_path / "saved")
    assert first == second
    assert [line.rsplit(" ", 1)[0] for line in first.splitlines()] == ["epoch 1 loss", "epoch 2 loss", "dice"]
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.size == (3 * 3 * 64 + 2 * 12, 3 * 64)
    assert (tmp_path / "saved" / "unet.pdparams").stat().st_size > 0
    assert len(list((tmp_path / "saved").glob("*.png"))) == 1


@pytest.mark.slow
def test_worker_processes_do_not_change_that(data: Path) -> None:
    first, second = (run("train_segmentation.py", data, "--epochs", 2, "--workers", 2) for _ in range(2))
    assert first == second
