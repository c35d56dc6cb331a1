"""Calls of owners and operators: signed by their own key, for one broker, once.

A call is a DSSE envelope, so what signs can't be mistaken for another of sealfs's documents. It names the broker,
so that no other can use it, and carries a random id and a time by which it has to arrive: brokers remember ids for
that long. There is no password and no session.

Threading: immutable values.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sealfs.attestation.canonical import Members, canonical, parse_json
from sealfs.dsse import DsseError, Envelope, read_envelope
from sealfs.errors import DocumentError, TrustError, UsageError
from sealfs.keys import Identity, Signer

CALL_PATH = "/sealfs/v0/call"
MAX_CALL_SIZE = 4 << 20  # the keys of 10,000 epochs, in hex, in base64; and a policy
LIFETIME = 120  # seconds
_PAYLOAD_TYPE = "application/vnd.sealfs.broker-call+json"
_ID_SIZE = 16
_NAME = r"[a-z-]{1,40}"
_BROKER = r"sha256:[0-9a-f]{64}"


@dataclass(frozen=True, slots=True)
class Call:
    """Something that a broker is to do.

    Attributes:
        name: What.
        arguments: With what; a JSON object.
        broker: Identity of the broker that is meant.
        signer: Who wants it.
        identifier: 16 random bytes.
        expires: Unix time by which it has to arrive.
    """

    name: str
    arguments: Mapping[str, Any] = field(repr=False)
    broker: str
    signer: Signer
    identifier: bytes
    expires: int

    @classmethod
    def new(cls, name: str, arguments: Mapping[str, Any], broker: str, signer: Signer, now: int) -> Call:
        """Return a call that is good from now on, once."""
        return cls(name, arguments, broker, signer, os.urandom(_ID_SIZE), now + LIFETIME)

    def sign(self, identity: Identity) -> bytes:
        """Return the message."""
        document = {
            "call": self.name,
            "arguments": dict(self.arguments),
            "broker": self.broker,
            "signer": str(self.signer),
            "id": self.identifier.hex(),
            "expires": self.expires,
        }
        envelope = Envelope(canonical(document), _PAYLOAD_TYPE, {})
        envelope.sign(identity.signing_key())
        return canonical(envelope.to_dict())

    @classmethod
    def parse(cls, data: bytes) -> Call:
        """Read a message and verify that whom it names has signed it; whether they may is not decided here.

        Raises:
            DocumentError: Malformed.
            TrustError: Not signed by whom it names.
        """
        what = "the call"
        envelope = read_envelope(Members(parse_json(data, what, MAX_CALL_SIZE), what), _PAYLOAD_TYPE, "call")
        document = parse_json(envelope.payload, what, MAX_CALL_SIZE)
        members = Members(document, what).only("call", "arguments", "broker", "signer", "id", "expires")
        members.object("arguments")
        try:
            signer = Signer.parse(members.text("signer"))
        except UsageError as error:
            raise DocumentError(f"{what}: {error.message}") from None
        try:
            envelope.verify([signer.verification_key()], 1)
        except (DsseError, ValueError):
            raise TrustError("the call bears no valid signature of who it says it is from") from None
        return cls(
            members.text("call", _NAME),
            document["arguments"],
            members.text("broker", _BROKER),
            signer,
            members.hexadecimal("id", _ID_SIZE),
            members.integer("expires", 0, 1 << 40),
        )
