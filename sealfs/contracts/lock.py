"""Results that recipients can open only after k of n have voted for it, without anybody who could be asked to
cheat.

The results are sealed for an identity that is made inside for this one output. That identity is wrapped twice: with
a random key, and that for each recipient. The random key is cut into shares (Shamir), one for each voter, of which
k are needed. To vote is to pass one's share on to the recipients. So voters alone can't open the results, nor can
recipients before the vote, and no server is asked.

Threading: stateless.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations, islice
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sealfs.attestation.canonical import Members, canonical, parse_json
from sealfs.contracts.approval import RUN_ID_SIZE
from sealfs.contracts.contract import Contract
from sealfs.contracts.terms import MAX_PARTIES, NAME, Output
from sealfs.dsse import DsseError, Envelope, read_envelope
from sealfs.errors import ContractError, KeyAccessError, TrustError
from sealfs.keys import Identity, Signer, parse_identity

PAYLOAD_TYPE: Final = "application/vnd.sealfs.result-lock+json"
MAX_SIZE: Final = 1 << 20  # bytes
_FORMAT: Final = "sealfs-lock-1"
_HALF: Final = 16  # bytes: what the library's field takes at a time
_NONCE: Final = 12
_MAX_WRAPPED: Final = 8192
_MAX_TRIES: Final = 10_000


@dataclass(frozen=True)
class Lock:
    """What is made public of a locked output.

    Attributes:
        contract: Digest of the contract.
        run: Which run.
        output: Which output.
        votes: How many shares are needed.
        shares: Each voter's share, wrapped for that voter.
        identity: What opens the results, locked and wrapped for each recipient.
    """

    contract: str
    run: str
    output: str
    votes: int
    shares: Mapping[str, bytes] = field(repr=False)
    identity: Mapping[str, bytes] = field(repr=False)

    @classmethod
    def make(cls, contract: Contract, run: str, output: str, identity: Identity) -> Lock:
        """Lock up an identity as an output of a contract says."""
        terms = contract.outputs[output]
        key, nonce = os.urandom(2 * _HALF), os.urandom(_NONCE)
        context = _context("identity", contract.digest, run, output)
        locked = nonce + AESGCM(key).encrypt(nonce, identity.to_text().encode(), context)
        shares = {}
        for voter, share in zip(terms.voters, _split(terms.votes, len(terms.voters), key), strict=True):
            shares[voter] = _wrap(contract, voter, share, _context("share", contract.digest, run, output, voter))
        identities = {name: _wrap(contract, name, locked, context) for name in terms.recipients}
        return cls(contract.digest, run, output, terms.votes, shares, identities)

    def sign(self, identity: Identity) -> bytes:
        """Return it signed by the run's key."""
        document = {
            "format": _FORMAT,
            "contract": self.contract,
            "run": self.run,
            "output": self.output,
            "votes": self.votes,
            "shares": {name: share.hex() for name, share in self.shares.items()},
            "identity": {name: wrapped.hex() for name, wrapped in self.identity.items()},
        }
        envelope = Envelope(canonical(document), PAYLOAD_TYPE, {})
        envelope.sign(identity.signing_key())
        return canonical(envelope.to_dict())

    @classmethod
    def parse(cls, data: bytes, contract: Contract, run: str, output: str, signer: Signer) -> Lock:
        """Read one that has to be of this output of this run.

        Raises:
            DocumentError: It is none.
            TrustError: It is not signed by the run's key, or of something else.
        """
        what = "the lock"
        fields = Members(parse_json(data, what, MAX_SIZE), what)
        envelope = read_envelope(fields, PAYLOAD_TYPE, "lock")
        try:
            envelope.verify([signer.verification_key()], 1)
        except (DsseError, ValueError):
            raise TrustError(
                "the lock is not signed by the run's key", "do not vote on it; ask the operator"
            ) from None
        members = Members(parse_json(envelope.payload, what, MAX_SIZE), what)
        members.only("format", "contract", "run", "output", "votes", "shares", "identity")
        members.text("format", _FORMAT)
        found = cls(
            members.hexadecimal("contract", 32).hex(),
            members.hexadecimal("run", RUN_ID_SIZE).hex(),
            members.text("output", NAME),
            members.integer("votes", 1, MAX_PARTIES),
            _wrapped(members.object("shares")),
            _wrapped(members.object("identity")),
        )
        terms = contract.outputs[output]
        if (found.contract, found.run, found.output) != (contract.digest, run, output):
            raise TrustError("the lock is of another result", "do not vote on it; ask the operator")
        if (found.votes, set(found.shares), set(found.identity)) != (
            terms.votes,
            set(terms.voters),
            set(terms.recipients),
        ):
            raise TrustError("the lock has other terms than the contract", "do not vote on it; ask the operator")
        return found

    def share_for_recipients(self, contract: Contract, voter: str, identity: Identity) -> dict[str, bytes]:
        """Return a voter's share, wrapped for each recipient: what a vote passes on.

        Raises:
            KeyAccessError: This is not the voter's identity.
        """
        share = identity.unwrap(self.shares[voter], _context("share", self.contract, self.run, self.output, voter))
        context = _context("vote", self.contract, self.run, self.output, voter)
        return {name: _wrap(contract, name, share, context) for name in self.identity}

    def open(self, recipient: str, identity: Identity, votes: Mapping[str, Mapping[str, bytes]]) -> Identity:
        """Return the identity that opens the results.

        Args:
            recipient: Who asks.
            identity: Theirs.
            votes: Each voter's shares, by recipient.

        Raises:
            ContractError: Not a recipient, or not enough votes.
            KeyAccessError: The identity is not the recipient's, or too few of the shares are good.
        """
        if recipient not in self.identity:
            raise ContractError(f"'{recipient}' is no recipient of output '{self.output}'")
        shares = []
        for voter, wrapped in votes.items():
            context = _context("vote", self.contract, self.run, self.output, voter)
            try:
                shares.append(identity.unwrap(wrapped[recipient], context))
            except KeyAccessError:
                continue  # a voter's fault; another's vote may do
        if len(shares) < self.votes:
            raise ContractError(
                f"{len(shares)} of the {self.votes} votes that are needed are there",
                "others vote: sealfs task vote",
            )
        context = _context("identity", self.contract, self.run, self.output)
        locked = identity.unwrap(self.identity[recipient], context)
        for chosen in islice(combinations(shares, self.votes), _MAX_TRIES):
            try:
                text = AESGCM(_combine(chosen)).decrypt(locked[:_NONCE], locked[_NONCE:], context)
            except (InvalidTag, ValueError):
                continue
            return parse_identity(text.decode(), "the lock")
        raise KeyAccessError("the shares that the voters passed on do not open the lock", "let them vote again")


def is_locked(output: Output) -> bool:
    """Whether an output is released by a vote."""
    return output.votes > 0


def _context(what: str, *parts: str) -> bytes:
    return f"sealfs 1 result {what} {' '.join(parts)}".encode()


def _wrap(contract: Contract, party: str, secret: bytes, context: bytes) -> bytes:
    recipient = contract.parties[party].recipient
    assert recipient is not None  # noqa: S101 - contracts are checked for that
    return recipient.wrap(secret, context)


def _wrapped(members: Members) -> dict[str, bytes]:
    pattern = f"(?:[0-9a-f]{{2}}){{1,{_MAX_WRAPPED}}}"
    return {name: bytes.fromhex(members.text(name, pattern)) for name in members}


def _split(votes: int, voters: int, key: bytes) -> list[bytes]:
    from Crypto.Protocol.SecretSharing import Shamir  # noqa: PLC0415 - only contracts with votes need it

    halves = [Shamir.split(votes, voters, key[:_HALF]), Shamir.split(votes, voters, key[_HALF:])]
    return [bytes([number]) + a + b for (number, a), (_, b) in zip(*halves, strict=True)]


def _combine(shares: Iterable[bytes]) -> bytes:
    from Crypto.Protocol.SecretSharing import Shamir  # noqa: PLC0415 - only contracts with votes need it

    parts: list[Any] = list(shares)
    if any(len(share) != 1 + 2 * _HALF for share in parts):
        raise ValueError("a share of another length")
    return bytes(
        Shamir.combine([(share[0], share[1 : 1 + _HALF]) for share in parts])
        + Shamir.combine([(share[0], share[1 + _HALF :]) for share in parts])
    )
