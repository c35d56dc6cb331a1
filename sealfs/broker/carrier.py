"""Carries contracts and what was said about them from party to party.

A member brings a contract that they take part in. From then on anybody who knows its digest can fetch it and add
statements, which are nothing without the signature of a party: so approvals meet here without any party having an
account at another's broker. Each statement is logged when it comes, so that nobody can say later it was not there.

Threading: safe; transactions are the database's.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import datetime

from sealfs.broker.agreements import add_task, get_task
from sealfs.broker.audit import Log
from sealfs.broker.database import Database
from sealfs.broker.protocol import Problem
from sealfs.broker.release import RefusedError
from sealfs.contracts.task import Task
from sealfs.errors import ContractError

CONTRACT_PATH = "/sealfs/v0/contract"


class Carrier:
    """The contracts of one broker.

    Args:
        database: Where all is kept.
        log: Where statements are noted.
        clock: Returns the time, with a zone.
    """

    def __init__(self, database: Database, log: Log, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._log = log
        self._clock = clock

    def fetch(self, digest: str) -> bytes:
        """Return a task.

        Raises:
            RefusedError: It is not here.
        """
        task = self._database.read(lambda transaction: get_task(transaction, digest))
        if task is None:
            raise RefusedError(Problem("PluginNotFound", 404, "this broker does not know that contract"))
        return task.to_bytes()

    def add(self, digest: str, data: bytes) -> bytes:
        """Verify a task, keep what is new about a contract that is known, and return all that is known of it.

        Raises:
            ContractError: It is not known, not the one that is meant, or a statement has no place in it.
            TrustError: A statement is forged.
            DocumentError: It is no task.
        """
        task = Task.parse(data)
        if task.contract.digest != digest:
            raise ContractError(
                f"that is a task about another contract, {task.contract.digest}", "send it to that one's address"
            )
        return self._database.write(lambda transaction: self.keep(transaction, task, may_be_new=False)).to_bytes()

    def keep(self, transaction: sqlite3.Connection, task: Task, *, may_be_new: bool) -> Task:
        """Keep a verified task in a transaction, and return all that is known of it."""
        known, new = add_task(transaction, task, may_be_new=may_be_new)
        for said in new:
            record = {"contract": said.contract, "task": said.task, "party": said.party, "action": str(said.action)}
            self._log.append(
                transaction, self._clock(), "said", {**record, **({"run": said.run} if said.run else {})}
            )
        return known
