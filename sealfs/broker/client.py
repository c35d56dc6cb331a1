"""The enclave's side of the protocol: proves this run to a broker and takes the keys that it releases.

Each run has a key pair of its own, and evidence binds it to the broker that TLS was made with: an answer that was
asked for by anybody else, or given by another broker, opens nothing. It also talks to a Trustee KBS, whose evidence
is bound to less (`trustee`).

Threading: a client is for one thread.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from sealfs.attestation.binding import RuntimeData
from sealfs.attestation.canonical import Members, parse_json
from sealfs.attestation.evidence import Evidence, EvidenceProvider
from sealfs.attestation.levels import Level
from sealfs.attestation.sample import SampleProvider
from sealfs.broker import protocol
from sealfs.broker.address import BrokerAddress
from sealfs.broker.jose import RunKey
from sealfs.broker.protocol import Attestation, Challenge, Problem, Request, Resource, bound_data
from sealfs.broker.transport import BUSY, Connection, ProblemError
from sealfs.dataset.keyring import DatasetKeys
from sealfs.dataset.snapshot import MAX_VERSION
from sealfs.errors import BrokerError, DocumentError, IntegrityError, KeyRefusedError
from sealfs.keys import Signer

_UNATTESTED = 401
_PAUSES = (0.5, 1.0, 2.0, 4.0)  # seconds before a busy broker is asked again, and up to twice that


@dataclass(frozen=True, slots=True)
class Released:
    """What a broker of ours released.

    Attributes:
        keys: Of the dataset.
        signer: Who signed the version.
        version: The version that the owner has published.
        sha256: Digest of its snapshot object, 32 bytes.
        level: What this run reaches, as the broker judged.
        demanded: What the dataset's policy demands.
    """

    keys: DatasetKeys = field(repr=False)
    signer: Signer
    version: int
    sha256: bytes
    level: Level
    demanded: Level


class BrokerClient:
    """One run's dealings with one broker.

    Args:
        address: Which broker.
        provider: Makes evidence here; None if nothing can be proven.
        bound: Hex digest of what else evidence is to be bound to, such as a contract's.
        said: More members of the runtime data, which the evidence is bound to as well.
        trustee: Whether it is a Trustee KBS: it binds nonce and key only.

    Attributes:
        shown: The evidence that the broker was given last, and what it is bound to; None before.
    """

    def __init__(
        self,
        address: BrokerAddress,
        provider: EvidenceProvider | None,
        *,
        bound: str | None = None,
        said: Mapping[str, str] | None = None,
        trustee: bool = False,
    ) -> None:
        self._address = address
        self._provider = provider or SampleProvider()
        self._bound = bound
        self._said = dict(said or {})
        self.shown: tuple[RuntimeData, Evidence] | None = None
        self._version = protocol.DEPLOYED if trustee else protocol.DOCUMENTED
        self._is_trustee = trustee
        self._key = RunKey()
        self._cookie: str | None = None

    def resource(self, owner: str, dataset: bytes, version: int | None = None) -> Released:
        """Return a dataset's keys.

        Args:
            owner: Whose it is, by the name that the broker knows.
            dataset: Its id, 16 bytes.
            version: Which version; None for the one published last.

        Raises:
            KeyRefusedError: The broker refuses, and says why.
            BrokerError: It can't be asked, or answers nonsense.
            EvidenceError: No evidence could be made here.
        """
        resource = Resource(owner, dataset.hex(), version)
        return _released(self.secret(str(resource)), resource)

    def secret(self, path: str) -> bytes:
        """Return whatever lies at a resource's path, such as `repository/type/tag`; see `resource`."""
        for pause in _PAUSES:
            try:
                return self._secret(path)
            except ProblemError as error:
                if not _is_busy(error.problem):
                    raise
            time.sleep(pause * (1 + random.random()))  # noqa: S311 - so that not all come again at once
        return self._secret(path)

    def _secret(self, path: str) -> bytes:
        with self._asking() as connection:
            if self._cookie is None:
                self._attest(connection)
            try:
                return self._fetch(connection, path)
            except ProblemError as error:
                if error.problem.status != _UNATTESTED:
                    raise
            self._attest(connection)  # the session has ended, or the broker was started anew
            return self._fetch(connection, path)

    @contextmanager
    def _asking(self) -> Iterator[Connection]:
        try:
            with Connection(self._address) as connection:
                yield connection
        except ProblemError as error:
            problem = error.problem
            if problem.status >= 500 or _is_busy(problem):
                raise
            raise KeyRefusedError(problem.detail, problem.hint) from None
        except DocumentError as error:
            raise BrokerError(f"the broker at {self._address} answers nonsense: {error.message}") from None

    def _attest(self, connection: Connection) -> None:
        self._cookie = None
        request = Request(self._version, self._provider.tee)
        answer = connection.ask("POST", protocol.AUTH_PATH, request.to_bytes())
        challenge = Challenge.parse(answer.body)
        extra = dict(self._said)
        if not self._is_trustee and connection.identity is not None:
            extra["broker"] = connection.identity
        if self._bound is not None:
            extra["bound"] = self._bound
        runtime = RuntimeData(challenge.nonce, self._key.public, extra)
        evidence = self._provider.collect(bound_data(self._version, runtime).report_data())
        self.shown = runtime, evidence
        attestation = Attestation(runtime, evidence.body)
        connection.ask("POST", protocol.ATTEST_PATH, attestation.to_bytes(), answer.cookie)
        self._cookie = answer.cookie

    def _fetch(self, connection: Connection, path: str) -> bytes:
        answer = connection.ask("GET", f"{protocol.RESOURCE_PATH}/{path}", cookie=self._cookie)
        what = "the broker's response"
        return self._key.open(Members(parse_json(answer.body, what, protocol.MAX_ANSWER_SIZE), what))


def _is_busy(problem: Problem) -> bool:
    """Whether the same may succeed a moment later."""
    return problem.status in BUSY and problem.kind == "HTTPFailed"


def _released(secret: bytes, resource: Resource) -> Released:
    """Read what was released, and make sure that it is what was asked for."""
    what = "what the broker released"
    try:
        members = Members(parse_json(secret, what, protocol.MAX_ANSWER_SIZE), what)
        dataset = members.hexadecimal("dataset", 16)
        released = Released(
            DatasetKeys.unpack(dataset, bytes.fromhex(members.text("keys", r"(?:[0-9a-f]{2}){1,1000000}"))),
            Signer.parse(members.text("signer")),
            members.integer("version", 1, MAX_VERSION),
            members.hexadecimal("sha256", 32),
            Level.parse(members.text("level")),
            Level.parse(members.text("demanded")),
        )
    except (DocumentError, IntegrityError) as error:
        raise BrokerError(f"{what} is malformed: {error.message}") from None
    if dataset.hex() != resource.dataset or members.text("owner") != resource.owner:
        raise BrokerError(f"{what} is another dataset's", "ask the broker's operator")
    if resource.version is not None and released.version != resource.version:
        raise BrokerError(f"{what} is for version {released.version}, not {resource.version}")
    return released
