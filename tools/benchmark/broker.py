"""Measures a broker: complete exchanges (TLS, challenge, attestation, keys) a second, many enclaves at once.

Broker and enclaves share this machine, so its cores, too. Each exchange is on disk before its key leaves.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sealfs.attestation.policy import Policy
from sealfs.broker.address import BrokerAddress
from sealfs.broker.client import BrokerClient
from sealfs.broker.owner import BrokerMember
from sealfs.dataset.keyring import DatasetKeys
from sealfs.keys import Identity

_PROCESSES = 8


def _enclaves(address: str, dataset: bytes, count: int) -> None:
    for _ in range(count):
        BrokerClient(BrokerAddress.parse(address), None).resource("owner", dataset)


def _cpu_seconds(process: int) -> float:
    """What a process has computed so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _sync_seconds(folder: Path) -> float:
    """What one fsync costs here."""
    with (folder / "probe").open("wb") as file:
        start = time.perf_counter()
        for _ in range(50):
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
    return (time.perf_counter() - start) / 50


def main() -> None:
    enclaves = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    with tempfile.TemporaryDirectory(prefix="sealfs-bench-") as name:
        folder = Path(name)
        owner = Identity.generate()
        serve = [
            "broker",
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--home",
            folder / "home",
            "--key-file",
            folder / "key",
        ]
        command = [Path(sys.executable).parent / "sealfs", *serve, "--admin", str(owner.signer)]
        broker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        with broker:
            assert broker.stdout
            address = broker.stdout.readline().strip()
            keys = DatasetKeys.generate(os.urandom(16))
            policy = Policy.from_json({"level": "L1", "development": True})
            member = BrokerMember(BrokerAddress.parse(address), owner)
            member.publish(keys, 1, bytes(32), owner.signer, policy, 0)
            _enclaves(address, keys.dataset, 10)
            each = -(-enclaves // _PROCESSES)
            workers = [
                multiprocessing.Process(target=_enclaves, args=(address, keys.dataset, each))
                for _ in range(_PROCESSES)
            ]
            start, computed = time.perf_counter(), _cpu_seconds(broker.pid)
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
            seconds = time.perf_counter() - start
            computed = _cpu_seconds(broker.pid) - computed
            broker.terminate()
        done = each * _PROCESSES
        print(f"{done} enclaves, {_PROCESSES} at a time, in {seconds:.1f} s: {done / seconds:.0f} a second")
        one = computed / done
        print(f"the broker computes {1000 * one:.1f} ms for each: a core serves at most {1 / one:.0f} a second")
        print(f"one fsync costs {1000 * _sync_seconds(folder):.2f} ms here")


if __name__ == "__main__":
    main()
