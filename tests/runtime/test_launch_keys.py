"""The launcher's keys and whom it believes: what a host that starts it can and cannot choose."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from sealfs.ciphertext import head_of
from sealfs.dataset.access import AccessChange
from sealfs.dataset.dataset import Dataset
from sealfs.dataset.keyring import DatasetKeys
from sealfs.dataset.push import Push
from sealfs.dataset.trust import TrustStore
from sealfs.enclave.keysource import write_preshared_keys
from sealfs.executors.launcher import LAUNCHER
from sealfs.keys import Identity
from sealfs.store.local import LocalStore

PASSPHRASE = "correct horse battery staple"


@dataclass(frozen=True)
class Provider:
    """Somebody with an identity, and datasets of two versions: `first` and `second` are in the one named file."""

    home: Path
    identity: Identity

    def push(self, name: str, **more: str) -> Path:
        source, store = self.home / f"{name}-source", self.home / name
        source.mkdir(parents=True)
        for text in ("first", "second"):
            (source / "file").write_text(f"{text} {name}")
            Push(source, LocalStore(store), self.identity, TrustStore(self.home / "trust")).run()
        return store

    def opened(self, store: Path, version: int) -> tuple[Dataset, DatasetKeys]:
        dataset = Dataset.open(LocalStore(store), TrustStore(self.home / "trust"), version=version)
        return dataset, dataset.keys(self.identity)

    @property
    def signer(self) -> str:
        return str(self.identity.signer)


@pytest.fixture
def provider(tmp_path: Path) -> Provider:
    return Provider(tmp_path / "provider", Identity.generate())


@contextmanager
def descriptor(text: str) -> Iterator[int]:
    read, write = os.pipe()
    os.write(write, text.encode())
    os.close(write)
    yield read
    os.close(read)


def launch(
    tmp_path: Path, options: Sequence[object], show: Sequence[Path], descriptors: Sequence[int]
) -> subprocess.CompletedProcess[str]:
    """Start the launcher with a fresh state, as in an enclave, on a script that shows files."""
    script = tmp_path / "show.py"
    script.write_text("import sys\nfor name in sys.argv[1:]: print(open(name).read())\n")
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path / f"state{len(os.listdir(tmp_path))}")}
    command = [sys.executable, "-m", LAUNCHER, *map(str, options), "--", script, *(path / "file" for path in show)]
    return subprocess.run(
        command, pass_fds=descriptors, env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def with_identity(
    tmp_path: Path, identity: Identity, *options: object, show: Sequence[Path] = ()
) -> subprocess.CompletedProcess[str]:
    with descriptor(identity.to_text()) as number:
        return launch(tmp_path, ["--identity-fd", number, *options], show or [tmp_path / "data"], [number])


def rolled_back(provider: Provider, store: Path, copy: Path) -> Path:
    """The store as it was when it had its first version only: all of it authentic."""
    shutil.copytree(store, copy)
    first, _ = provider.opened(store, 1)
    (copy / "head").write_bytes(head_of(first))
    return copy


def test_older_version_instead_of_the_one_that_is_pinned(provider: Provider, tmp_path: Path) -> None:
    store = provider.push("eyes")
    old = rolled_back(provider, store, tmp_path / "old")
    second, _ = provider.opened(store, 2)
    data = tmp_path / "data"
    for pin in ("@2", f"@sha256:{second.ref.sha256.hex()}"):
        shown = with_identity(
            tmp_path, provider.identity, "--signer", provider.signer, "--data", f"{store}{pin}:{data}"
        )
        assert (shown.returncode, shown.stdout) == (0, "second eyes\n"), shown.stderr
        refused = with_identity(
            tmp_path, provider.identity, "--signer", provider.signer, "--data", f"{old}{pin}:{data}"
        )
        assert (refused.returncode, refused.stdout) == (3, "")
        assert "there is no version" in refused.stderr


def test_pinned_to_an_older_version_although_there_is_a_newer(provider: Provider, tmp_path: Path) -> None:
    store = provider.push("eyes")
    first, _ = provider.opened(store, 1)
    for pin in ("@1", f"@sha256:{first.ref.sha256.hex()}"):
        shown = with_identity(tmp_path, provider.identity, "--data", f"{store}{pin}:{tmp_path / 'data'}")
        assert shown.stdout == "first eyes\n", shown.stderr


def test_another_dataset_of_the_same_signer(provider: Provider, tmp_path: Path) -> None:
    """What a number does not prevent, as `sealfs lint` says, and a digest does."""
    eyes, lungs = provider.push("eyes"), provider.push("lungs")
    dataset, _ = provider.opened(eyes, 2)
    data = tmp_path / "data"
    by_number = with_identity(
        tmp_path, provider.identity, "--signer", provider.signer, "--data", f"{lungs}@2:{data}"
    )
    assert by_number.stdout == "second lungs\n"
    digest = f"@sha256:{dataset.ref.sha256.hex()}"
    refused = with_identity(tmp_path, provider.identity, "--data", f"{lungs}{digest}:{data}")
    assert (refused.returncode, refused.stdout) == (3, "")


def test_each_dataset_has_its_own_signer(provider: Provider, tmp_path: Path) -> None:
    """Two providers; neither's data is taken for the other's, although one reader can open both."""
    forger = Provider(tmp_path / "forger", Identity.generate())
    mine, theirs = provider.push("mine"), forger.push("theirs")
    change = AccessChange(LocalStore(theirs), forger.identity, TrustStore(forger.home / "trust"))
    change.grant([provider.identity.recipient])
    one, two = tmp_path / "one", tmp_path / "two"
    data = ["--data", f"{mine}:{one}", "--data", f"{theirs}:{two}"]
    right = ["--signer", f"{one}={provider.signer}", "--signer", f"{two}={forger.signer}"]
    shown = with_identity(tmp_path, provider.identity, *data, *right, show=[one, two])
    assert shown.stdout == "second mine\nsecond theirs\n", shown.stderr
    for wrong in (
        ["--signer", f"{one}={forger.signer}", "--signer", f"{two}={provider.signer}"],
        ["--signer", provider.signer],
        ["--signer", f"{two}={provider.signer}"],
    ):
        refused = with_identity(tmp_path, provider.identity, *data, *wrong, show=[one, two])
        assert (refused.returncode, refused.stdout) == (6, "")
    nowhere = with_identity(tmp_path, provider.identity, *data, "--signer", f"/x={provider.signer}")
    assert nowhere.returncode == 2
    assert "where there is no dataset" in nowhere.stderr


@pytest.mark.parametrize(("passphrase", "code"), [(PASSPHRASE, 0), (PASSPHRASE + "\n", 0), ("wrong", 4), (None, 4)])
def test_locked_identity(provider: Provider, tmp_path: Path, passphrase: str | None, code: int) -> None:
    store = provider.push("eyes")
    provider.identity.save(tmp_path / "identity", PASSPHRASE)
    with descriptor((tmp_path / "identity").read_text()) as identity, descriptor(passphrase or "") as word:
        options: list[object] = ["--identity-fd", identity, "--data", f"{store}:{tmp_path / 'data'}"]
        options += [] if passphrase is None else ["--passphrase-fd", word]
        ended = launch(tmp_path, options, [tmp_path / "data"], [identity, word])
    assert (ended.returncode, ended.stdout) == (code, "" if code else "second eyes\n"), ended.stderr
    assert "passphrase" in ended.stderr or not code
    assert PASSPHRASE not in ended.stderr


def test_preshared_keys_open_their_dataset_and_no_other(provider: Provider, tmp_path: Path) -> None:
    eyes, lungs = provider.push("eyes"), provider.push("lungs")
    write_preshared_keys(tmp_path / "keys", [provider.opened(eyes, 2)[1]])
    for store, code in ((eyes, 0), (lungs, 4)):
        with (tmp_path / "keys").open() as file:
            options = ["--keys-fd", file.fileno(), "--data", f"{store}:{tmp_path / 'data'}"]
            ended = launch(tmp_path, options, [tmp_path / "data"], [file.fileno()])
        assert (ended.returncode, ended.stdout) == (code, "" if code else "second eyes\n"), ended.stderr


def test_no_keys_or_two_kinds_of_them(provider: Provider, tmp_path: Path) -> None:
    data = ["--data", f"{provider.push('eyes')}:{tmp_path / 'data'}"]
    for options in (data, [*data, "--identity-fd", "0", "--keys-fd", "0"]):
        ended = launch(tmp_path, options, [], [])
        assert ended.returncode == 2
        assert "keys come from one of --identity-fd, --keys-fd" in ended.stderr


def test_too_much_for_a_key(provider: Provider, tmp_path: Path) -> None:
    (tmp_path / "huge").write_bytes(bytes(3 << 20))
    with (tmp_path / "huge").open() as file:
        options = ["--identity-fd", file.fileno(), "--data", f"{provider.push('eyes')}:{tmp_path / 'data'}"]
        ended = launch(tmp_path, options, [], [file.fileno()])
    assert ended.returncode == 4
    assert "too much for a key" in ended.stderr


def test_program_inherits_no_secret(provider: Provider, tmp_path: Path) -> None:
    """Neither descriptor is open any more, also in programs that are exec'd."""
    store = provider.push("eyes")
    provider.identity.save(tmp_path / "identity", PASSPHRASE)
    with descriptor((tmp_path / "identity").read_text()) as identity, descriptor(PASSPHRASE) as word:
        command = [sys.executable, "-m", LAUNCHER, "--identity-fd", str(identity), "--passphrase-fd", str(word)]
        command += ["--data", f"{store}:{tmp_path / 'data'}", "--", "sh", "-c", "ls -l /proc/$$/fd"]
        ended = subprocess.run(
            command, pass_fds=[identity, word], capture_output=True, text=True, check=True, timeout=60,
            stdin=subprocess.DEVNULL, env={**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")},
        )  # fmt: skip
        for number in (identity, word):
            assert os.readlink(f"/proc/self/fd/{number}") not in ended.stdout
