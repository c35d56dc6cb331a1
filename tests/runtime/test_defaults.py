"""What the launcher sets where processes share no memory, and leaves alone where they do."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.conftest import Sealed

ENVIRONMENT = """
import os
print([os.environ.get(name) for name in ("MALLOC_ARENA_MAX", "OMP_WAIT_POLICY", "KMP_INIT_AT_FORK")])
"""
LOADER = """
import inspect, sys, warnings
warnings.simplefilter("ignore")
import numpy, paddle
from paddle.io import DataLoader, Dataset
class Numbers(Dataset):
    def __len__(self): return 10
    def __getitem__(self, index): return numpy.full((3,), index, "float32")
loader = DataLoader(Numbers(), batch_size=4, num_workers=2)
print(loader.use_shared_memory, [batch.numpy().tolist() for batch in loader])
print("class DataLoader" in inspect.getsource(sys.modules["paddle.io.reader"]))
"""


def test_only_where_it_is_needed(sealed: Sealed, without: Path) -> None:
    mine = {"OMP_WAIT_POLICY": "ACTIVE"}
    natively = sealed.python(ENVIRONMENT, env=mine)
    there = sealed.python(ENVIRONMENT, env=mine, under=(without,))
    assert natively.stdout == "[None, 'ACTIVE', None]\n"
    assert there.stdout == "['1', 'ACTIVE', 'FALSE']\n"


BARE = """
import subprocess, sys
def said(*command, **how): return subprocess.run(command, capture_output=True, text=True, **how).stdout
print("LD_LIBRARY_PATH=/no/such/folder" in said("/usr/bin/env", env={}).splitlines())
print("LD_LIBRARY_PATH=/another" in said("/usr/bin/env", env={"LD_LIBRARY_PATH": "/another"}).splitlines())
print(said("/usr/bin/env", "-i", "/usr/bin/env").count("LD_LIBRARY_PATH="))
"""


def test_libraries_of_children_with_an_empty_environment(sealed: Sealed, without: Path) -> None:
    """Gramine's C library is found by LD_LIBRARY_PATH alone; elsewhere who empties it is obeyed."""
    given = {"LD_LIBRARY_PATH": "/no/such/folder"}
    assert sealed.python(BARE, env=given).stdout == "False\nTrue\n0\n"
    assert sealed.python(BARE, env=given, under=(without,)).stdout == "True\nTrue\n1\n"


@pytest.mark.slow
def test_loader_with_workers(sealed: Sealed, without: Path) -> None:
    pytest.importorskip("paddle", reason="no PaddlePaddle")
    natively, there = sealed.python(LOADER), sealed.python(LOADER, under=(without,))
    assert natively.stdout.startswith("True [[[0.0, 0.0, 0.0], [1.0,")
    assert there.stdout == natively.stdout.replace("True", "False", 1), there.stderr
