"""Keys for one run of a contract: proves the run to every owner's broker, and takes what they release.

Threading: one thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sealfs.attestation.evidence import EvidenceProvider
from sealfs.attestation.levels import Level
from sealfs.broker.address import BrokerAddress
from sealfs.broker.client import BrokerClient
from sealfs.contracts.contract import Contract
from sealfs.contracts.provenance import Exhibit
from sealfs.contracts.shares import combine
from sealfs.dataset.keyring import DatasetKeys
from sealfs.errors import ContractError, TrustError
from sealfs.keys import Identity
from sealfs.tasks.inputs import agreed


@dataclass(frozen=True)
class Keys:
    """What the brokers have released, and what they were shown.

    Attributes:
        keys: Input to its dataset's keys.
        level: The lowest that a broker has found.
        tee: Kind of evidence.
        exhibits: The evidence, for whoever verifies the results.
    """

    keys: Mapping[str, DatasetKeys]
    level: Level
    tee: str
    exhibits: tuple[Exhibit, ...]


def release(contract: Contract, run_identity: Identity, run: str, provider: EvidenceProvider) -> Keys:
    """Prove this run to every owner's broker, and return what they release.

    Args:
        contract: What the evidence is bound to.
        run_identity: Who will sign the results; the evidence is bound to it as well.
        run: Id of this run, likewise.
        provider: Makes the evidence.

    Raises:
        KeyRefusedError: A broker refuses, and says why.
        TrustError: A broker releases something else than agreed.
        SealfsError: A broker can't be asked.
    """
    said = {"results": str(run_identity.signer), "run": run}
    clients: dict[str, BrokerClient] = {}
    found: dict[str, DatasetKeys] = {}
    levels = []
    for name, entry in sorted(contract.inputs.items()):
        data = agreed(name, entry)
        shares = []
        for owner in entry.owners:
            address = contract.parties[owner].broker
            if address is None:
                raise ContractError(
                    f"'{owner}' has no broker that could release {name}", "the contract has to name one"
                )
            if owner not in clients:
                clients[owner] = BrokerClient(
                    BrokerAddress.parse(address), provider, bound=contract.digest, said=said
                )
            answer = clients[owner].resource(owner, bytes.fromhex(data.dataset), data.version)
            if (answer.version, answer.sha256.hex()) != (data.version, data.snapshot):
                raise TrustError(f"the broker of '{owner}' releases another version of {name} than agreed")
            shares.append(answer.keys)
            levels.append(answer.level)
        found[name] = shares[0] if len(shares) == 1 else combine(shares)
    exhibits = tuple(Exhibit(*client.shown) for client in clients.values() if client.shown is not None)
    return Keys(found, min(levels), provider.tee, exhibits)
