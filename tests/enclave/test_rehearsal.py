"""What an enclave's launcher loads to have keys released shows only in an exchange, so the rehearsal has one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sealfs.enclave.attach import LIBRARY
from sealfs.enclave.collected import collect
from sealfs.executors.launcher import rehearsal_command


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.skipif(not LIBRARY.exists(), reason="the library for enclaves has not been built")
def test_keys_by_evidence(tmp_path: Path) -> None:
    """With evidence, and only then: what a TLS client and the kinds of hardware need. The sample was read."""
    loaded = {}
    for by_evidence in (False, True):
        folder = tmp_path / str(by_evidence)
        folder.mkdir()
        code, paths = collect(rehearsal_command(folder, by_evidence=by_evidence))
        assert code == 0
        assert (folder / "results" / "head").exists()
        loaded[by_evidence] = paths
    more = loaded[True] - loaded[False]
    for name in ("encodings/idna.py", "sealfs/broker/client.py", "sealfs/attestation/gramine.py"):
        assert any(path.endswith(f"/{name}") for path in more), name
