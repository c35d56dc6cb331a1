"""Reading under gramine-direct, beside what Gramine itself has for that: its `encrypted` mounts.

A round is one start of Gramine, and one process in it reads both, in turn, so that they share what Gramine costs.
What lies below is in the host's page cache: sealfs's objects as `sealfs fetch` leaves them, and Gramine's files.
"""

from __future__ import annotations

import json
import secrets
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from benchmark.common import BIG, SMALL, AbsentError, BenchError, Size
from benchmark.contenders import Sealfs
from benchmark.data import touch
from benchmark.processes import end, run, start
from sealfs.executors.gramine import MANIFEST, RENDERED

WORKER = Path(__file__).with_name("gramine_worker.py")
_PATIENCE = 900  # seconds for a round
_TURN = "ROUND-NUMBER"  # in the manifest that rounds are made of
MOUNTS = "fs.mounts = [\n"  # in the template
CIPHERTEXT_MOUNT = '  { path = "/ciphertext/0"'

GramineRates = dict[str, dict[str, float]]
"""By row: what `sealfs` and `encrypted` did a second."""


class Gramine:
    """The same files sealed and in an encrypted mount, in one manifest."""

    def __init__(self, work: Path, sealed: Sealfs, size: Size) -> None:
        for program in ("gramine-direct", "gramine-manifest", "gramine-sgx-pf-crypt", "strace"):
            if shutil.which(program) is None:
                raise AbsentError(f"{program} is not on PATH")
        self.sealed = sealed
        self.size = size
        self.work = work / "gramine"
        self.enclave = self.work / "enclave"
        self.encrypted = self.work / "encrypted"

    def seal(self, plain: Path) -> None:
        """Encrypt the files with Gramine's tool, and make a manifest for both."""
        self.encrypted.mkdir(parents=True)
        key = self.work / "key"
        key.write_bytes(secrets.token_bytes(16))
        for name in (BIG, SMALL):
            run(["gramine-sgx-pf-crypt", "encrypt", "-w", key, "-i", plain / name, "-o", self.encrypted / name])
        data, size = self.work / "data", json.dumps(vars(self.size))
        little = json.dumps(vars(self.size) | {"small": 10, "random_reads": 1})
        identity = self.sealed.work / "config" / "sealfs" / "identity.pub"
        run(
            [
                *(self.sealed.program, "measure", "--executor", "gramine-direct", "--enclave", self.enclave),
                *("--data", f"{self.sealed.uri}:{data}", "--signer", identity, "--exclude", f"{plain}/*"),
                *("--trial", shlex.join(map(str, (sys.executable, WORKER, plain, plain, 0, little)))),
                *("--", sys.executable, WORKER, data, self.encrypted, _TURN, size),
            ],
            self.sealed.env,
        )
        template = self.enclave / RENDERED
        mount = f'  {{ type = "encrypted", path = "{self.encrypted}", uri = "file:{self.encrypted}" }},\n'
        text = template.read_text()
        for line, more in (
            (CIPHERTEXT_MOUNT, mount),
            (MOUNTS, f'fs.insecure__keys.default = "{key.read_bytes().hex()}"\n'),
        ):
            if line not in text:
                raise BenchError(f"{template} has no line {line!r}")
            text = text.replace(line, more + line)
        template.write_text(text)
        run(["gramine-manifest", template, self.enclave / MANIFEST])
        (self.enclave / "ciphertext").mkdir()
        (self.enclave / "ciphertext" / "0").symlink_to(self.sealed.uri)

    def round(self, number: int) -> GramineRates:
        """Start Gramine and measure everything once."""
        touch(Path(self.sealed.uri))
        touch(self.encrypted)
        text = (self.enclave / MANIFEST).read_text().replace(_TURN, str(number))
        (self.enclave / "round.manifest").write_text(text)
        with (self.sealed.work / "config" / "sealfs" / "identity").open() as identity:
            process = start(["gramine-direct", "round"], cwd=self.enclave, stdin=identity, stdout=subprocess.PIPE)
        try:
            out, _ = process.communicate(timeout=_PATIENCE)
        finally:
            end(process)
        if process.returncode:
            raise BenchError(f"measuring under gramine-direct failed: {out[-500:].decode(errors='replace')}")
        return dict(json.loads(out.splitlines()[-1]))
