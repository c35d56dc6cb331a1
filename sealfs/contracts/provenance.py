"""Where a result comes from, signed inside: an in-toto statement with SLSA's provenance in it.

The form is in-toto's Statement v1 (https://in-toto.io/Statement/v1) with the predicate SLSA provenance v1
(https://slsa.dev/provenance/v1), in a DSSE envelope, so that other tools read it. What is new about ours is who
signs: a key that is made inside for one run and that signs the result's snapshot as well. The evidence in it is
bound to that key and to the contract; so it shows which code made the result, on which data, by whose agreement,
and how well protected, to everybody who verifies the evidence, without a word from the operator.

Threading: immutable.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sealfs.attestation.binding import RuntimeData
from sealfs.attestation.canonical import Members, canonical, parse_json
from sealfs.attestation.evidence import Evidence
from sealfs.attestation.levels import Level
from sealfs.contracts import terms
from sealfs.contracts.approval import RUN_ID_SIZE
from sealfs.contracts.contract import ID_SIZE, MAX_VERSION, Contract, parse_time, shown_time
from sealfs.contracts.terms import SealedData
from sealfs.dsse import DsseError, Envelope, read_envelope
from sealfs.errors import DocumentError, TrustError, UsageError
from sealfs.keys import Identity, Signer

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://slsa.dev/provenance/v1"
BUILD_TYPE: Final = "urn:sealfs:contract-run:1"
MAX_SIZE: Final = 2 << 20  # bytes; evidence with its collateral has some 20 KiB, one for each broker
_MAX_DEPTH: Final = 12
_MAX_EXHIBITS: Final = terms.MAX_PARTIES
_MAX_EVIDENCE: Final = 256 << 10


@dataclass(frozen=True)
class Exhibit:
    """One broker's challenge and the evidence that answered it.

    Attributes:
        runtime_data: What the evidence is bound to.
        evidence: As it was given to the broker.
    """

    runtime_data: RuntimeData
    evidence: Evidence

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {"runtime-data": self.runtime_data.to_json(), **self.evidence.to_json()}

    @classmethod
    def parse(cls, data: bytes) -> Exhibit:
        """Read one.

        Raises:
            DocumentError: It is none.
        """
        what = "the exhibit"
        document = parse_json(data, what, _MAX_EVIDENCE)
        members = Members(document, what).only("runtime-data", "tee", "tee-evidence")
        runtime = members.object("runtime-data")
        nonce = runtime.text("nonce")
        runtime.object("tee-pubkey")
        members.object("tee-evidence")
        said = document["runtime-data"]
        extra = {name: said[name] for name in said if name not in {"nonce", "tee-pubkey"}}
        evidence = Evidence(members.text("tee", r"[a-z0-9-]{1,40}"), document["tee-evidence"])
        return cls(RuntimeData(nonce, said["tee-pubkey"], extra), evidence)


@dataclass(frozen=True)
class Provenance:
    """What is said of one result.

    Attributes:
        contract: Digest of the contract.
        task: Its id.
        run: Which run.
        output: Which output.
        result: The result's last snapshot: dataset, version, digest; the address is where it was put first.
        signer: The run's key, which signed that snapshot and this.
        inputs: Name to what was read.
        script: SHA-256 of the script that ran.
        level: What the environment reached.
        tee: Kind of evidence; "none" at L1.
        measurement: Of what ran; empty if nothing was measured.
        started: When the script was started.
        finished: When it had ended.
        exit_code: How it ended.
        exhibits: The evidence, one for each broker that was asked.
    """

    contract: str
    task: str
    run: str
    output: str
    result: SealedData
    signer: Signer
    inputs: Mapping[str, SealedData]
    script: str
    level: Level
    tee: str
    measurement: str
    started: datetime
    finished: datetime
    exit_code: int
    exhibits: tuple[Exhibit, ...] = field(default=(), repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return the in-toto statement."""
        inputs = [
            {
                "name": f"input/{name}",
                "uri": data.address,
                "digest": {"sha256": data.snapshot},
                "annotations": {"dataset": data.dataset, "version": data.version},
            }
            for name, data in sorted(self.inputs.items())
        ]
        result = self.result
        return {
            "_type": STATEMENT_TYPE,
            "subject": [
                {
                    "name": self.output,
                    "uri": result.address,
                    "digest": {"sha256": result.snapshot},
                    "annotations": {"dataset": result.dataset, "version": result.version},
                }
            ],
            "predicateType": PREDICATE_TYPE,
            "predicate": {
                "buildDefinition": {
                    "buildType": BUILD_TYPE,
                    "externalParameters": {"contract": self.contract, "task": self.task, "output": self.output},
                    "internalParameters": {"level": str(self.level), "exit_code": self.exit_code},
                    "resolvedDependencies": [{"name": "script", "digest": {"sha256": self.script}}, *inputs],
                },
                "runDetails": {
                    "builder": {
                        "id": f"urn:sealfs:{self.tee}:{self.measurement}",
                        "version": {"signer": str(self.signer)},
                    },
                    "metadata": {
                        "invocationId": self.run,
                        "startedOn": shown_time(self.started),
                        "finishedOn": shown_time(self.finished),
                    },
                    "byproducts": [
                        {
                            "name": "evidence",
                            "mediaType": "application/json",
                            "content": base64.b64encode(canonical(exhibit.to_json())).decode(),
                        }
                        for exhibit in self.exhibits
                    ],
                },
            },
        }

    def sign(self, identity: Identity) -> bytes:
        """Return the signed envelope.

        Args:
            identity: The run's; the signer that is named in it.
        """
        envelope = Envelope(canonical(self.to_json()), PAYLOAD_TYPE, {})
        envelope.sign(identity.signing_key())
        return canonical(envelope.to_dict())

    @classmethod
    def parse(cls, data: bytes) -> Provenance:
        """Read one, and check that the key that it names has signed it. What vouches for that key: `check`.

        Raises:
            DocumentError: It is none of ours.
            TrustError: It was changed after it was signed.
        """
        document = parse_json(data, "the provenance's envelope", MAX_SIZE)
        fields = Members(document, "the provenance's envelope").only("payload", "payloadType", "signatures")
        envelope = read_envelope(fields, PAYLOAD_TYPE, "provenance")
        found = cls._read(envelope.payload)
        try:
            envelope.verify([found.signer.verification_key()], 1)
        except (DsseError, ValueError):
            raise TrustError(
                "the provenance is not signed by the run's key that it names", "do not believe it, nor its result"
            ) from None
        return found

    @classmethod
    def _read(cls, payload: bytes) -> Provenance:
        what = "the provenance"
        members = Members(parse_json(payload, what, MAX_SIZE, _MAX_DEPTH), what)
        members.only("_type", "subject", "predicateType", "predicate")
        members.text("_type", STATEMENT_TYPE)
        members.text("predicateType", PREDICATE_TYPE)
        subjects = members.objects("subject", 1)
        definition = members.object("predicate").object("buildDefinition")
        details = members.object("predicate").object("runDetails")
        definition.text("buildType", BUILD_TYPE)
        asked, internal = definition.object("externalParameters"), definition.object("internalParameters")
        dependencies = {
            entry.text("name", r"script|input/" + terms.NAME): entry
            for entry in definition.objects("resolvedDependencies", terms.MAX_INPUTS + 1)
        }
        metadata, builder = details.object("metadata"), details.object("builder")
        tee, _, measurement = (
            builder.text("id", r"urn:sealfs:[a-z0-9-]{1,40}:[0-9a-f]{0,128}").split(":", 2)[2].partition(":")
        )
        if not subjects or "script" not in dependencies:
            raise DocumentError("the provenance has no subject, or no script")
        script = dependencies.pop("script").object("digest").hexadecimal("sha256", 32).hex()
        output = asked.text("output", terms.NAME)
        subjects[0].text("name", output.replace(".", r"\."))
        try:
            signer = Signer.parse(builder.object("version").text("signer", r"[!-~]{1,200}"))
        except UsageError as error:
            raise DocumentError(f"the provenance: {error.message}") from None
        return cls(
            contract=asked.hexadecimal("contract", 32).hex(),
            task=asked.hexadecimal("task", ID_SIZE).hex(),
            run=metadata.hexadecimal("invocationId", RUN_ID_SIZE).hex(),
            output=output,
            result=_resource(subjects[0]),
            signer=signer,
            inputs={name.removeprefix("input/"): _resource(entry) for name, entry in dependencies.items()},
            script=script,
            level=Level.parse(internal.text("level", "L[1-5]")),
            tee=tee,
            measurement=measurement,
            started=parse_time(metadata, "startedOn"),
            finished=parse_time(metadata, "finishedOn"),
            exit_code=internal.integer("exit_code", 0, 255),
            exhibits=tuple(_exhibit(entry) for entry in details.objects("byproducts", _MAX_EXHIBITS)),
        )

    def check(self, contract: Contract) -> None:
        """Make sure that it is about this contract, and says of no run but one that this contract allows.

        What it says is its signer's word; whether the evidence in it vouches for that signer is another question.

        Raises:
            TrustError: Another contract, other data, other code, a lower level, an output that was not agreed on.
        """
        data = {name: entry.data for name, entry in contract.inputs.items()}
        same = {name: entry and (entry.dataset, entry.version, entry.snapshot) for name, entry in data.items()}
        read = {name: (entry.dataset, entry.version, entry.snapshot) for name, entry in self.inputs.items()}
        for ok, words in (
            ((self.contract, self.task) == (contract.digest, contract.id), "it comes from another contract"),
            (self.output in contract.outputs, "the contract has no such output"),
            (same == read, "it was made from other data than agreed"),
            (contract.function.sha256 in {None, self.script}, "it was made by another script than agreed"),
            (
                self.level >= contract.policy.level,
                f"it was made at {self.level}, agreed is {contract.policy.level}",
            ),
            (contract.not_before <= self.started <= self.finished, "it was made before the contract held"),
            (self.started < contract.expires, "it was made after the contract had expired"),
        ):
            if not ok:
                raise TrustError(
                    f"the provenance does not fit: {words}", "do not use this result; ask the operator"
                )


def _resource(members: Members) -> SealedData:
    notes = members.object("annotations")
    return SealedData(
        notes.hexadecimal("dataset", 16).hex(),
        notes.integer("version", 1, MAX_VERSION),
        members.object("digest").hexadecimal("sha256", 32).hex(),
        members.text("uri", terms.URL),
    )


def _exhibit(members: Members) -> Exhibit:
    members.text("name", "evidence")
    text = members.text("content", r"[A-Za-z0-9+/=]{0,400000}")
    try:
        return Exhibit.parse(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        raise DocumentError("the provenance has evidence that is not base64") from None
