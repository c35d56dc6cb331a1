"""Trains the example, to see how much of the reading shows there."""

from __future__ import annotations

import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmark.common import ROOT, AbsentError, BenchError
from benchmark.processes import end, start

Starter = Callable[..., subprocess.Popen[bytes]]


class EpochTimer:
    """Trains one epoch with examples/train_segmentation.py, in one process that has Paddle loaded.

    Args:
        starter: Starts the process, like `processes.start`.
    """

    CODE = (
        "import argparse, sys, time; sys.path.insert(0, sys.argv[1])\n"
        "import train_segmentation as script, paddle, numpy\n"
        "args = argparse.Namespace(learning_rate=5e-3, batch_size=4, workers=0, epochs=1)\n"
        "print('ready', flush=True)\n"
        "for line in sys.stdin:\n"
        "    paddle.seed(0); numpy.random.seed(0)\n"
        "    began = time.perf_counter()\n"
        "    data = script.Vessels(script.Path(line.rstrip('\\n')))\n"
        "    script.train(script.UNet(), data, args)\n"
        "    print('took', len(data) / (time.perf_counter() - began), flush=True)\n"
    )

    def __init__(self, starter: Starter = start) -> None:
        self._process = starter(
            [sys.executable, "-c", self.CODE, ROOT / "examples"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        try:
            self._line("ready")
        except BenchError:
            raise AbsentError("PaddlePaddle is not installed") from None

    def _line(self, word: str) -> str:
        assert self._process.stdout is not None
        line = b""
        while not line.startswith(word.encode()):
            if not select.select([self._process.stdout], [], [], 120)[0]:
                raise BenchError("the training hangs")
            line = self._process.stdout.readline()
            if not line:
                raise BenchError("the training failed")
        return line.decode()

    def __call__(self, folder: Path) -> float:
        """Train one epoch on a folder; return images per second."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{folder}\n".encode())
        return float(self._line("took").split()[1])

    def close(self) -> None:
        """End the process."""
        end(self._process)
