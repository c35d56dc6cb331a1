"""Rehearses the launcher on made-up data, so that `sealfs measure` sees all that it loads in an enclave.

    rehearsal.py FOLDER [--by-evidence] [MODULE ...]

Importing its modules would not do: libraries load more when they are first used. So keys by evidence come from a
broker, one that stands in for it here. MODULEs, which need more than that to be used, are at least imported. FOLDER
is empty, and removed by the caller.

Threading: one thread.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from sealfs.dataset.dataset import Dataset
from sealfs.dataset.push import Push, PushOptions
from sealfs.dataset.trust import TrustStore
from sealfs.enclave import launch
from sealfs.keys import Identity
from sealfs.store.local import LocalStore

_SCRIPT = """
import pathlib, sys
data, out = map(pathlib.Path, sys.argv[1:])
(out / "result").write_bytes((data / "sample").read_bytes())
"""


def main(folder: Path, *, by_evidence: bool) -> int:
    """Seal a sample, and run a script on it whose result is sealed.

    Args:
        folder: Empty.
        by_evidence: Whether a broker releases the sample's keys, for a runner's word.

    Returns:
        The launcher's exit code.
    """
    identity = Identity.generate()
    plain = folder / "plain"
    for new in (plain, folder / "mount"):
        new.mkdir()
    (plain / "sample").write_bytes(bytes(100_000))
    (folder / "script.py").write_text(_SCRIPT)
    with closing(LocalStore(folder / "store")) as store:
        trust = TrustStore(folder / "trust")
        Push(plain, store, identity, trust, PushOptions()).run()
        dataset = Dataset.open(store, trust)
    if not by_evidence:
        return _launch(folder, identity, ["--identity-fd", "0"], identity.to_text())

    from sealfs.attestation.detect import detect  # noqa: PLC0415 - as in the launcher, only where it is needed
    from sealfs.enclave.keysource import RunnerSecret  # noqa: PLC0415
    from sealfs.enclave.rehearsal_broker import OWNER, stand_in  # noqa: PLC0415

    detect(folder)  # what tells the kinds of hardware apart; there is none in this folder
    with stand_in(folder, dataset, dataset.keys(identity)) as address:
        source = ["--runner-fd", "0", "--broker", f"{OWNER}@{address}"]
        return _launch(folder, identity, source, RunnerSecret(identity, "00" * 32).to_text())


def _launch(folder: Path, identity: Identity, source: Sequence[str], secret: str) -> int:
    mount, out = folder / "mount", folder / "out"
    command = [
        *(sys.executable, "-m", launch.__name__, *source, "--signer", str(identity.signer)),
        *("--data", f"{(folder / 'store').as_uri()}:{mount}"),
        *("--out", f"{(folder / 'results').as_uri()}:{out}"),
        *("--out-recipient", str(identity.recipient), "--", str(folder / "script.py"), str(mount), str(out)),
    ]
    environment = {**os.environ, "XDG_STATE_HOME": str(folder / "state"), "TMPDIR": str(folder)}
    return subprocess.run(command, input=secret, text=True, env=environment, check=False).returncode


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("modules", nargs="*")
    parser.add_argument("--by-evidence", action="store_true")
    options = parser.parse_intermixed_args()
    for name in options.modules:
        importlib.import_module(name)
    sys.exit(main(options.folder, by_evidence=options.by_evidence))
