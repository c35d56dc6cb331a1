"""What a script writes natively lies in memory; if its process is killed somebody else has to remove it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from sealfs.enclave.memory import memory_folder, remove_left_behind

KILLED = """
import os, sys
from pathlib import Path
from sealfs.enclave.memory import memory_folder
with memory_folder(Path(sys.argv[1])) as folder:
    (folder.content / "half").write_text("of a model")
    os._exit(85)
"""


def test_what_a_killed_process_leaves_is_removed_and_others_stays(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with subprocess.Popen([sys.executable, "-c", KILLED, path]) as process:
        assert process.wait() == 85
    folder = path.readlink().parent
    assert (folder / "content" / "half").exists()
    remove_left_behind(path, os.getpid())
    assert (folder / "content" / "half").exists()
    remove_left_behind(path, process.pid)
    assert not folder.exists()
    assert not path.is_symlink()
    remove_left_behind(path, process.pid)
    (tmp_path / "elsewhere").mkdir()
    path.symlink_to(tmp_path / "elsewhere")  # somebody's own link
    remove_left_behind(path, process.pid)
    assert path.is_symlink()


def test_nothing_is_left_of_one_that_ends(tmp_path: Path) -> None:
    with memory_folder(tmp_path / "out") as folder:
        (tmp_path / "out" / "file").write_text("x")
        assert (folder.content / "file").exists()
    assert not folder.content.parent.exists()
    assert list(tmp_path.iterdir()) == []
