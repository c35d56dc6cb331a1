"""Real PaddlePaddle repositories, as their users have them, and tiny datasets in their formats.

Nothing of them is here or ever fetched: SEALFS_PADDLE_REPOSITORIES names a folder with checkouts `PaddleSeg`,
`PaddleClas` and `PaddleRec` (any of them), and, if what they require is not in our own environment, `venv`. Their
training entry points run as they are; only configuration is ours. Under Gramine that `venv` runs sealfs,
too: it needs `pip install 'sealfs[enclave]'`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

SETTING = "SEALFS_PADDLE_REPOSITORIES"
_TOP = Path(os.environ[SETTING]) if SETTING in os.environ else None  # tests see nothing of our environment later
_SIZE = 64
_NUMBERS = re.compile(r"\b(?:loss|auc\w*|mIoU|top1):? ?\[?(\d\.\d+)")
_WEIGHTS = (".pdparams", ".pdopt", ".pdstates")


@dataclass(frozen=True)
class Training:
    """What is to be trained.

    Attributes:
        data: Folder of the dataset.
        out: Folder for results.
        config: Folder for configuration.
        workers: How many load data.
        stage: 1 trains a little, 2 goes on from a checkpoint of that, and 0 is a training by itself.
        start: Folder in which stage 2 finds what stage 1 saved; None for `out`.
    """

    data: Path
    out: Path
    config: Path
    workers: int = 0
    stage: int = 0
    start: Path | None = None

    def checkpoint(self, name: str) -> str | None:
        """Return the path of a checkpoint to go on from, if that is to be done."""
        return str((self.start or self.out) / name) if self.stage == 2 else None

    def saved(self, document: object) -> Path:
        """Write configuration; JSON is YAML, too."""
        self.config.mkdir(exist_ok=True)
        path = self.config / f"stage{self.stage}.yaml"
        path.write_text(json.dumps(document, indent=1))
        return path


@dataclass(frozen=True)
class Repository:
    """One of them.

    Attributes:
        name: Of its checkout.
        make: Makes a dataset in an empty folder.
        arguments: Returns the entry point below the checkout, and its arguments.
    """

    name: str
    make: Callable[[Path], None]
    arguments: Callable[[Path, Training], list[object]]

    @property
    def checkout(self) -> Path:
        """Where it lies; skips the test if it does not."""
        if _TOP is None or not (_TOP / self.name).is_dir():
            pytest.skip(f"no checkout of {self.name}: {SETTING} names no folder that has it")
        return _TOP / self.name

    @property
    def python(self) -> str:
        """The interpreter that has what it requires."""
        theirs = self.checkout.parent / "venv" / "bin" / "python"
        return str(theirs if theirs.exists() else sys.executable)

    @property
    def environment(self) -> dict[str, str]:
        """What its training needs; one thread each, so that sums come in one order."""
        return {"PYTHONPATH": str(self.checkout), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}

    def command(self, training: Training) -> list[str]:
        """Return the command line of a training."""
        return [self.python, *self.script(training)]

    def script(self, training: Training) -> list[str]:
        """Return its script and arguments alone."""
        script, *arguments = self.arguments(self.checkout, training)
        return [str(self.checkout / str(script)), *map(str, arguments)]


def numbers(log: str) -> list[str]:
    """Return all losses and metrics that a training printed, to the last digit, in their order."""
    return _NUMBERS.findall(log)


def weights(folder: Path) -> dict[str, str]:
    """Return the digests of everything that a training saved to go on with, by its path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.suffix in _WEIGHTS
    }


def _discs(top: Path, count: int) -> None:
    """Write pictures of discs and their masks."""
    import cv2

    random = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (top / folder).mkdir(parents=True)
    for number in range(count):
        mask = np.zeros((_SIZE, _SIZE), np.uint8)
        x, y, radius = (int(value) for value in random.integers((16, 16, 6), (48, 48, 16)))
        cv2.circle(mask, (x, y), radius, 1, -1)
        picture = random.integers(0, 80, (_SIZE, _SIZE, 3)) + mask[:, :, None] * 120
        cv2.imwrite(str(top / f"images/{number}.jpg"), picture.astype(np.uint8))
        cv2.imwrite(str(top / f"masks/{number}.png"), mask)


def _make_segmentation(top: Path) -> None:
    _discs(top, 12)
    lines = [f"images/{number}.jpg masks/{number}.png\n" for number in range(12)]
    (top / "train.txt").write_text("".join(lines[:8]))
    (top / "val.txt").write_text("".join(lines[8:]))


def _segmentation(_: Path, run: Training) -> list[object]:
    """PaddleSeg, evaluating, logging to VisualDL, and keeping one checkpoint: older ones go by rmtree."""

    def dataset(mode: str, *transforms: str) -> dict[str, object]:
        return {
            "type": "Dataset", "mode": mode, "num_classes": 2, "dataset_root": str(run.data),
            f"{mode}_path": str(run.data / f"{mode}.txt"), "transforms": [{"type": name} for name in transforms],
        }  # fmt: skip

    document = {
        "batch_size": 4,
        "iters": 4 if run.stage == 1 else 6,
        "train_dataset": dataset("train", "RandomHorizontalFlip", "RandomDistort", "Normalize"),
        "val_dataset": dataset("val", "Normalize"),
        "model": {"type": "BiSeNetV2", "num_classes": 2},
        "optimizer": {"type": "SGD", "momentum": 0.9, "weight_decay": 0.0004},
        "lr_scheduler": {"type": "PolynomialDecay", "learning_rate": 0.01, "end_lr": 0, "power": 0.9},
        "loss": {"types": [{"type": "CrossEntropyLoss"}], "coef": [1, 1, 1, 1, 1]},
    }
    start = run.checkpoint("iter_4")
    resume = ["--resume_model", start] if start else []
    return [
        *("tools/train.py", "--config", run.saved(document), "--device", "cpu"),
        *("--save_dir", run.out, "--num_workers", run.workers),
        *(
            "--do_eval",
            "--use_vdl",
            "--save_interval",
            2,
            "--log_iters",
            1,
            "--keep_checkpoint_max",
            1,
            "--seed",
            1,
        ),
        *resume,
    ]


def _make_classification(top: Path) -> None:
    _discs(top, 12)
    lines = [f"images/{number}.jpg {number % 2}\n" for number in range(12)]
    (top / "train.txt").write_text("".join(lines[:8]))
    (top / "val.txt").write_text("".join(lines[8:]))


def _classification(_: Path, run: Training) -> list[object]:
    """PaddleClas, with evaluation after each epoch."""

    def loader(labels: str, *, shuffle: bool) -> dict[str, object]:
        flip = [{"RandFlipImage": {"flip_code": 1}}] if shuffle else []
        normalize = {"scale": "1.0/255.0", "mean": [0.5] * 3, "std": [0.2] * 3, "order": ""}
        decode = {"to_rgb": True, "channel_first": False}
        operations = [{"DecodeImage": decode}, *flip, {"NormalizeImage": normalize}]
        return {
            "dataset": {"name": "ImageNetDataset", "image_root": f"{run.data}/", "transform_ops": operations,
                        "cls_label_path": str(run.data / labels)},
            "sampler": {"name": "DistributedBatchSampler", "batch_size": 4, "drop_last": False, "shuffle": shuffle},
            "loader": {"num_workers": run.workers, "use_shared_memory": True},
        }  # fmt: skip

    loss, metric = [{"CELoss": {"weight": 1.0}}], [{"TopkAcc": {"topk": [1, 2]}}]
    document = {
        "Global": {
            "checkpoints": run.checkpoint("epoch_1"), "pretrained_model": None,
            "output_dir": str(run.out), "device": "cpu", "seed": 1, "save_interval": 1, "eval_during_train": True,
            "eval_interval": 1, "epochs": 1 if run.stage == 1 else 2, "print_batch_step": 1, "use_visualdl": True,
            "image_shape": [3, _SIZE, _SIZE],
        },
        "Arch": {"name": "MobileNetV3_small_x0_35", "class_num": 2},
        "Loss": {"Train": loss, "Eval": loss},
        "Optimizer": {"name": "Momentum", "momentum": 0.9, "lr": {"name": "Cosine", "learning_rate": 0.01}},
        "DataLoader": {"Train": loader("train.txt", shuffle=True), "Eval": loader("val.txt", shuffle=False)},
        "Metric": {"Train": metric, "Eval": metric},
    }  # fmt: skip
    return ["tools/train.py", "-c", run.saved(document)]


def _make_census(top: Path) -> None:
    """Write two labels and ten features a line, into several files that are not in the order of their names."""
    top.mkdir(parents=True)
    random = np.random.default_rng(0)
    for part in ("part-2", "part-0", "part-1"):
        labels, features = random.integers(0, 2, (40, 2)), random.random((40, 10))
        np.savetxt(top / part, np.concatenate([labels, features], axis=1), fmt="%.4f", delimiter=",")


def _recommendation(checkout: Path, run: Training) -> list[object]:
    """PaddleRec's Multi-gate Mixture-of-Experts, on whatever `os.listdir` finds.

    Not Wide & Deep: its reader keeps what it counts in the dataset itself, the trainer leaves an iterator over the
    data unfinished before each epoch, and without workers the threads of two iterators then disturb each other. On
    plain files 2 of 12 trainings hung.
    """
    options = {
        "runner.train_data_dir": run.data, "runner.model_save_path": run.out, "runner.num_workers": run.workers,
        "runner.epochs": 1 if run.stage else 2, "runner.train_batch_size": 10, "runner.print_interval": 1,
        "hyper_parameters.feature_size": 10,
    }  # fmt: skip
    start = run.checkpoint("0")
    if start:
        options["runner.model_init_path"] = start
    words = [f"{name}={value}" for name, value in options.items()]
    return ["tools/trainer.py", "-m", checkout / "models/multitask/mmoe/config.yaml", "-o", *words]


REPOSITORIES = (
    Repository("PaddleSeg", _make_segmentation, _segmentation),
    Repository("PaddleClas", _make_classification, _classification),
    Repository("PaddleRec", _make_census, _recommendation),
)
