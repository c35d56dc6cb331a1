"""The benchmark has to run through, and leave nothing behind."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import interrupted

ROOT = Path(__file__).parents[2]
BENCH = ROOT / "tools" / "bench"
OUTPUT = ROOT / "bench-output"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="there is no /dev/fuse"),
]


@pytest.fixture(autouse=True)
def results_kept() -> Iterator[None]:
    """Put the results of an earlier, real run back."""
    before = {path: path.read_bytes() for path in OUTPUT.glob("*")}
    yield
    for path, content in before.items():
        path.write_bytes(content)


@pytest.mark.timeout(960)
def test_quick_run_measures_everything(env: dict[str, str]) -> None:
    command = [BENCH, "--quick", "--json"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert json.loads((OUTPUT / "bench.json").read_text()) == report
    assert (OUTPUT / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert all(rate > 0 for rate in report["limits_bytes_per_second"].values())
    rows = {row["key"]: row for row in report["rows"]}
    wanted = {
        "sequential_cold",
        "sequential_warm",
        "whole_cold",
        "random_4k",
        "small_shuffled",
        "small_again",
        "find",
    }
    assert wanted <= rows.keys()
    absent = report["left_out"]
    assert ("paddle_epoch" in rows) != ("paddle_epoch" in absent)
    assert ("s3_small" in rows) != ("S3" in absent)
    assert report["cipher"] in {"openssl", "ipsec-mb", "libgcrypt"}
    assert {target["row"] for target in report["in_process_targets"]} <= rows.keys()
    assert ("in-process" in absent) == (not report["in_process_targets"])
    gramine = report["gramine"]
    assert len(gramine["rounds"]) == (0 if "gramine-direct" in absent else report["size"]["rounds"])
    assert len(gramine["targets"]) == (3 if gramine["rounds"] else 0)
    for target in gramine["targets"]:
        assert target["reached"] == (target["ratio"] >= target["at_least"])
    for row in rows.values():
        assert {"plain folder", "sealfs"} <= row["contenders"].keys()
        if not row["key"].startswith("s3"):
            assert {"gocryptfs", "rclone crypt", "tmpfs", "in-process"} <= row["contenders"].keys() | absent.keys()
        for contender in row["contenders"].values():
            assert len(contender["rounds"]) == report["size"]["rounds"]
            assert min(contender["rounds"]) > 0
            assert contender["to_plain"] > 0


def test_quick_run_of_segment_lengths(env: dict[str, str]) -> None:
    command = [BENCH, "segments", "--quick", "--json"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=550, check=False)
    assert done.returncode == 0, done.stderr
    for row in json.loads(done.stdout).values():
        assert row["65536"]["to_64_kib"] == 1
        assert len(row) == 7


def test_interrupted_while_mounted(env: dict[str, str], tmp_path: Path) -> None:
    def is_mounted() -> bool:
        return f"{tmp_path}/sealfs-bench-" in Path("/proc/self/mounts").read_text()

    assert interrupted([BENCH, "--quick"], env, is_mounted, patience=300) == 130
