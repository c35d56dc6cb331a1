"""Rehearses the launcher on made-up data, so that `sealfs measure` sees all that it loads in an enclave.

    rehearsal.py FOLDER [MODULE ...]

Importing its modules would not do: libraries load more when they are first used. What needs others to be used, a
broker for one, is at least imported. FOLDER is empty, and removed by the caller.

Threading: one thread.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

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


def main(folder: Path) -> int:
    """Seal a sample, and run a script on it whose result is sealed.

    Returns:
        The launcher's exit code.
    """
    identity = Identity.generate()
    identity.save(folder / "identity")
    plain, mount, script = folder / "plain", folder / "mount", folder / "script.py"
    for new in (plain, mount):
        new.mkdir()
    (plain / "sample").write_bytes(bytes(100_000))
    script.write_text(_SCRIPT)
    with closing(LocalStore(folder / "store")) as store:
        Push(plain, store, identity, TrustStore(folder / "trust"), PushOptions()).run()
    command = [
        *(sys.executable, "-m", launch.__name__, "--identity-fd", "0", "--signer", str(identity.signer)),
        *("--data", f"{(folder / 'store').as_uri()}:{mount}"),
        *("--out", f"{(folder / 'results').as_uri()}:{folder / 'out'}"),
        *("--out-recipient", str(identity.recipient), "--", str(script), str(mount), str(folder / "out")),
    ]
    environment = {**os.environ, "XDG_STATE_HOME": str(folder / "state"), "TMPDIR": str(folder)}
    with (folder / "identity").open("rb") as stdin:
        return subprocess.run(command, stdin=stdin, env=environment, check=False).returncode


if __name__ == "__main__":
    for name in sys.argv[2:]:
        importlib.import_module(name)
    sys.exit(main(Path(sys.argv[1])))
