"""`sealfs run` trains the unmodified example with the numbers of a plain run, and its results come out sealed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from commands import Sealfs
from servers import moto_server

from sealfs.enclave.attach import LIBRARY
from sealfs.executors.launcher import LAUNCHER
from sealfs.keys import Identity

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = pytest.mark.slow


def plain(script: str, *args: object) -> str:
    command = [sys.executable, EXAMPLES / script, *map(str, args)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=200).stdout


@pytest.mark.parametrize(
    "attach",
    [
        pytest.param("fuse", marks=pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="no /dev/fuse")),
        pytest.param("preload", marks=pytest.mark.skipif(not LIBRARY.exists(), reason="no libsealfs.so")),
    ],
)
@pytest.mark.parametrize("workers", [0, 2])
def test_losses_and_results(tmp_path: Path, attach: str, workers: int) -> None:
    source, data, out = tmp_path / "source", tmp_path / "data", tmp_path / "out"
    plain("make_vessels.py", source, "--count", 6, "--size", 64)
    data.mkdir()
    sealfs = Sealfs(tmp_path / "home", Identity.generate())
    sealfs("push", source, tmp_path / "store")
    options = ["--epochs", 2, "--workers", workers]
    expected = plain("train_segmentation.py", source, *options, "--save", tmp_path / "plain")
    job = ["--attach", attach, "--data", f"{tmp_path / 'store'}:{data}", "--out", f"{tmp_path / 'results'}:{out}"]
    script = EXAMPLES / "train_segmentation.py"
    ended = sealfs("run", *job, "--", sys.executable, script, data, *options, "--save", out / "saved")
    assert ended.text == expected
    sealfs("pull", tmp_path / "results", tmp_path / "pulled")
    saved = {path.name: path.read_bytes() for path in (tmp_path / "plain").iterdir()}
    assert saved
    assert {path.name: path.read_bytes() for path in (tmp_path / "pulled" / "saved").iterdir()} == saved


@pytest.mark.parametrize(
    "attach",
    [
        pytest.param("fuse", marks=pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="no /dev/fuse")),
        pytest.param("preload", marks=pytest.mark.skipif(not LIBRARY.exists(), reason="no libsealfs.so")),
    ],
)
def test_data_from_and_results_to_an_object_store(tmp_path: Path, attach: str) -> None:
    source, data, out = tmp_path / "source", tmp_path / "data", tmp_path / "out"
    source.mkdir()
    data.mkdir()
    (source / "sample").write_bytes(os.urandom(300_000))
    with moto_server() as server:
        server.create_bucket("bucket")
        sealfs = Sealfs(tmp_path / "home", Identity.generate(), **server.environment())
        sealfs("push", source, "s3://bucket/data")
        job = ["--attach", attach, "--data", f"s3://bucket/data:{data}", "--out", f"s3://bucket/results:{out}"]
        sealfs("run", *job, "--", "cp", data / "sample", out / "copy")
        assert sealfs("cat", "s3://bucket/results", "copy").stdout == (source / "sample").read_bytes()


@pytest.mark.skipif(not LIBRARY.exists(), reason="no libsealfs.so")
def test_all_in_one_process_as_in_an_enclave(tmp_path: Path) -> None:
    """The command that manifests hold, without the enclave: identity by standard input, data and results inside."""
    source, data = tmp_path / "source", tmp_path / "data"
    plain("make_vessels.py", source, "--count", 6, "--size", 64)
    data.mkdir()
    identity = Identity.generate()
    sealfs = Sealfs(tmp_path / "home", identity)
    sealfs("push", source, tmp_path / "store")
    options = ["--epochs", "1", "--workers", "2"]
    expected = plain("train_segmentation.py", source, *options, "--save", tmp_path / "plain")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        out = Path(memory) / "out"
        command = [
            *(sys.executable, "-m", LAUNCHER, "--identity-fd", "0", "--signer", str(identity.signer)),
            *("--data", f"{(tmp_path / 'store').as_uri()}@1:{data}"),
            *(
                "--out",
                f"{(tmp_path / 'results').as_uri()}:{out}",
                "--out-recipient",
                str(identity.recipient),
                "--",
            ),
            *(str(EXAMPLES / "train_segmentation.py"), str(data), *options, "--save", str(out / "saved")),
        ]
        with sealfs.identity_path.open("rb") as stdin:
            ended = subprocess.run(
                command, stdin=stdin, capture_output=True, text=True, check=False, timeout=200, env=sealfs.env
            )
    assert (ended.returncode, ended.stdout) == (0, expected), ended.stderr
    sealed = sealfs("cat", tmp_path / "results", "saved/unet.pdparams").stdout
    assert sealed == (tmp_path / "plain" / "unet.pdparams").read_bytes()
