"""Tasks as files: written whole or not at all, by one at a time."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

import pytest

from contracts.parties import NOW, approved, contract, identity
from sealfs.contracts.files import Seen, change_task, load_task, save_new_task
from sealfs.contracts.task import MAX_SIZE, Task
from sealfs.errors import ContractError, DocumentError, LocalIOError, UsageError


def test_a_task_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "loans.task"
    save_new_task(path, Task(contract()))
    assert load_task(path) == Task(contract())
    change_task(path, lambda task: task.approve(identity("bank-a"), NOW))
    assert set(load_task(path).approvals) == {"bank-a"}
    with pytest.raises(UsageError, match="exists already"):
        save_new_task(path, Task(contract()))
    assert [entry.name for entry in tmp_path.iterdir()] == ["loans.task"]


def test_a_refused_change_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "loans.task"
    save_new_task(path, approved(but=("bank-b",)))
    before = path.read_bytes()
    with pytest.raises(ContractError):
        change_task(path, lambda task: task.stage(identity("cloud"), NOW)[0])
    assert path.read_bytes() == before


def test_changes_at_once_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "loans.task"
    save_new_task(path, Task(contract()))

    def approve(name: str) -> None:
        change_task(path, lambda task: task.approve(identity(name), NOW + timedelta(seconds=1)))

    threads = [threading.Thread(target=approve, args=(name,)) for name in contract().approvers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(load_task(path).approvals) == set(contract().approvers)


def test_the_last_run_is_taken_once_by_however_many(tmp_path: Path) -> None:
    path = tmp_path / "loans.task"
    save_new_task(path, approved(contract(runs=1)))
    won: list[int] = []
    lost: list[ContractError] = []

    def stage(number: int) -> None:
        try:
            change_task(path, lambda task: task.stage(identity("cloud"), NOW)[0])
            won.append(number)
        except ContractError as error:
            lost.append(error)

    threads = [threading.Thread(target=stage, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert len(lost) == 7


def test_what_is_no_task(tmp_path: Path) -> None:
    with pytest.raises(LocalIOError, match="cannot read"):
        load_task(tmp_path / "nothing")
    (tmp_path / "x").write_bytes(b"{}")
    with pytest.raises(DocumentError):
        load_task(tmp_path / "x")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(100 * MAX_SIZE)
    with pytest.raises(DocumentError, match="bytes"):
        load_task(tmp_path / "huge")


def test_what_was_looked_at_is_remembered(tmp_path: Path) -> None:
    seen = Seen(tmp_path / "seen")
    assert seen.last(contract().id) is None
    seen.remember(contract())
    assert seen.last(contract().id) == contract()
    (tmp_path / "seen" / f"{contract().id}.json").write_bytes(b"junk")
    assert seen.last(contract().id) is None  # so it has to be looked at again
