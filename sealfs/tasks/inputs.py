"""A contract's inputs at their paths: attached in this process, or mounted, where the whole machine is trusted.

Inputs with the same path are one folder. A mount serves programs that do not call libc, too, and everybody else on
the machine: it is for guests that are protected as a whole (L4), and for rehearsals.

Threading: one thread; a mount is served by a process of its own, which is forked, so no threads before. A thread
watches the mounts.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path

from sealfs.contracts.contract import Contract
from sealfs.contracts.terms import Input, SealedData
from sealfs.dataset.dataset import Dataset
from sealfs.dataset.keyring import DatasetKeys
from sealfs.dataset.trust import TrustStore
from sealfs.dataset.union import Member
from sealfs.enclave.attach import attach, attach_union, objects_folder
from sealfs.errors import ContractError, IntegrityError
from sealfs.opening import CacheSettings, OpenView, open_union_view
from sealfs.store.local import LocalStore

_Opened = tuple[str, Sequence[Dataset], Sequence[Member]]


def agreed(name: str, entry: Input) -> SealedData:
    """Return which data an input is.

    Raises:
        ContractError: Nobody has said yet.
    """
    if entry.data is None:
        raise ContractError(f"the data of input {name} is not said")
    return entry.data


def attach_inputs(
    contract: Contract, folders: Mapping[str, str], keys: Mapping[str, DatasetKeys], state: Path
) -> None:
    """Serve the inputs at their paths in this process.

    Args:
        contract: What is agreed.
        folders: Input to the folder with its ciphertext, from the host.
        keys: Input to what opens it.
        state: A private folder.

    Raises:
        IntegrityError: The host's ciphertext is not what was agreed on.
        UsageError: Names clash in a union.
    """
    for path, datasets, members in _opened(contract, folders, keys, state):
        if len(members) == 1 and not members[0].prefix:
            attach(path, objects_folder(datasets[0]), members[0].index, members[0].keys)
        else:
            attach_union(path, [objects_folder(dataset) for dataset in datasets], members)


@contextmanager
def mounted_inputs(
    contract: Contract,
    folders: Mapping[str, str],
    keys: Mapping[str, DatasetKeys],
    state: Path,
    on_damage: Callable[[], None],
) -> Iterator[Callable[[], None]]:
    """Mount the inputs at their paths, for the length of the block; otherwise as `attach_inputs`.

    Args:
        contract: What is agreed.
        folders: Input to the folder with its ciphertext, from the host.
        keys: Input to what opens it.
        state: A private folder.
        on_damage: Called by a thread, once, when data does not authenticate, or a mount is gone.

    Yields:
        What calls `on_damage` if there has been damage so far: to be asked before anything leaves.
    """
    from sealfs.mount.child import MountChild, watched  # noqa: PLC0415 - not in enclaves

    with ExitStack() as stack:
        mounts = [
            stack.enter_context(closing(MountChild(partial(_in_child, state, datasets, members), path)))
            for path, datasets, members in list(_opened(contract, folders, keys, state))
        ]
        for mount in mounts:
            mount.wait_until_ready()
        yield stack.enter_context(watched(mounts, lambda error: on_damage()))


def _in_child(state: Path, datasets: Sequence[Dataset], members: Sequence[Member]) -> tuple[Dataset, OpenView]:
    """Prepare the process that serves a mount, and say what opens it."""
    os.environ["XDG_RUNTIME_DIR"] = str(state)  # its socket; the contract's environment has no place for one
    logging.disable()  # the host reads what is said here: it need not know which file is damaged
    return datasets[0], partial(open_union_view, datasets, members, CacheSettings())


def _opened(
    contract: Contract, folders: Mapping[str, str], keys: Mapping[str, DatasetKeys], state: Path
) -> Iterator[_Opened]:
    """Yield for each path, made if it is missing, what is seen there: verified datasets, and what opens them."""
    for path in sorted({entry.path for entry in contract.inputs.values()}):
        names = sorted(name for name, entry in contract.inputs.items() if entry.path == path)
        datasets = [_open(contract, name, folders[name], state) for name in names]
        os.makedirs(path, exist_ok=True)
        members = [
            Member(name, dataset.index(keys[name]), keys[name], contract.inputs[name].prefix.encode())
            for name, dataset in zip(names, datasets, strict=True)
        ]
        yield path, datasets, members


def _open(contract: Contract, name: str, folder: str, state: Path) -> Dataset:
    data = agreed(name, contract.inputs[name])
    store = LocalStore(Path(folder))
    with closing(store):
        dataset = Dataset.open(store, TrustStore(state / "trust" / name), version=bytes.fromhex(data.snapshot))
    found = dataset.snapshot.dataset.hex(), dataset.snapshot.version, dataset.ref.sha256.hex()
    if found != (data.dataset, data.version, data.snapshot):
        raise IntegrityError(f"what lies at {folder} is not the data agreed on for {name}")
    return dataset
