"""The parties' side of carrying: brings a task to a broker, and takes what others have brought.

What a broker answers is verified like any other copy of a task, and has to be about the very same contract.

Threading: stateless.
"""

from __future__ import annotations

from sealfs.broker.address import BrokerAddress
from sealfs.broker.carrier import CONTRACT_PATH
from sealfs.broker.owner import BrokerMember
from sealfs.broker.transport import Connection, ProblemError
from sealfs.contracts.task import Task
from sealfs.errors import ContractError, KeyRefusedError


def bring(member: BrokerMember, task: Task) -> None:
    """Bring a task to a broker that this party is a member of, as a contract that it takes part in.

    Raises:
        KeyRefusedError: Not a member there.
        BrokerError: It can't be asked.
    """
    member.call("contract", {"task": task.to_json()})


def exchange(address: BrokerAddress, task: Task) -> Task:
    """Add what is known to a broker's copy of a task, and return both together.

    Raises:
        KeyRefusedError: The broker does not know the contract.
        ContractError: It answers with another.
        BrokerError: It can't be asked.
    """
    return task.merged(_ask(address, "POST", task.contract.digest, task.to_bytes()))


def fetch(address: BrokerAddress, digest: str) -> Task:
    """Return a task of which only the contract's digest is known.

    Raises:
        KeyRefusedError: The broker does not know the contract.
        ContractError: It answers with another.
        BrokerError: It can't be asked.
    """
    task = _ask(address, "GET", digest, None)
    if task.contract.digest != digest:
        raise ContractError(f"the broker at {address} answers with another contract", "do not sign it")
    return task


def _ask(address: BrokerAddress, method: str, digest: str, body: bytes | None) -> Task:
    try:
        with Connection(address) as connection:
            return Task.parse(connection.ask(method, f"{CONTRACT_PATH}/{digest}", body).body)
    except ProblemError as error:
        if error.problem.status >= 500:
            raise
        raise KeyRefusedError(error.problem.detail, error.problem.hint) from None
