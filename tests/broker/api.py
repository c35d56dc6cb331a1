"""What schemathesis needs to talk to a broker: the API's description, TLS that pins the broker's key, signatures.

A signature can't be made up. So what is signed has a description of its own here, made of the same file, in which
its content takes the envelope's place; it is signed when it is sent.
"""

from __future__ import annotations

import base64
import copy
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any

import requests
import schemathesis
from contracts.parties import NAMES, contract, identity
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from requests.adapters import HTTPAdapter
from schemathesis.core import NotSet

from broker.tools import Broker
from broker.trustee import b64, jwk_of
from sealfs.attestation.binding import RuntimeData
from sealfs.broker.calls import CALL_PATH, LIFETIME
from sealfs.broker.carrier import CONTRACT_PATH
from sealfs.broker.protocol import ATTEST_PATH, AUTH_PATH, COOKIE
from sealfs.dsse import Envelope
from sealfs.errors import DocumentError
from sealfs.keys import Identity

Json = dict[str, Any]

DESCRIPTION: Json = json.loads((Path(__file__).parents[2] / "docs" / "broker-openapi.json").read_text())
SCHEMAS: Json = DESCRIPTION["components"]["schemas"]
CALLS = sorted(name.removesuffix(".arguments") for name in SCHEMAS if name.endswith(".arguments"))
AGREED = contract()

_CALL_TYPE = "application/vnd.sealfs.broker-call+json"
_PATIENCE = 90  # seconds for an answer
_EC = {256: ec.generate_private_key(ec.SECP256R1()), 521: ec.generate_private_key(ec.SECP521R1())}
_RSA = rsa.generate_private_key(65537, 2048)
_ED25519 = ed25519.Ed25519PrivateKey.generate()  # no TPM has one for attestation
_PEM = [
    key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    for key in (_EC[256], _RSA, _ED25519)
]

schemathesis.openapi.format("sealfs-signer", st.sampled_from([str(Identity.generate().signer) for _ in range(3)]))
schemathesis.openapi.format("sealfs-recipient", st.sampled_from([str(identity(name).recipient) for name in NAMES]))
schemathesis.openapi.format("public-key-pem", st.sampled_from(_PEM))


def operations(description: Json) -> list[str]:
    """All of a description's, such as "POST /kbs/v0/auth"."""
    methods = ("get", "post")
    found = description["paths"].items()
    return [f"{method.upper()} {path}" for path, item in found for method in methods if method in item]


def explore(description: Json, label: str, examples: int, attempt: Callable[[Any], None]) -> None:
    """Make cases for an operation, the same ones each time: each border of each schema once, and some by chance.

    Args:
        description: Which has the operation.
        label: Its method and path.
        examples: How many cases by chance of those that fit the description, and how many of those that do not.
        attempt: Called with each.
    """
    checks = {
        "ignored_auth": {"enabled": False},  # it asks again in a way that pins nothing
        "positive_data_acceptance": {"enabled": False},  # tests/broker/test_api.py knows better what is acceptable
        "negative_data_rejection": {"expected-statuses": ["400", "401", "403", "404", "405", "409", "413"]},
    }
    config = schemathesis.Config.from_dict({"seed": 0, "checks": checks})
    schema = schemathesis.openapi.from_dict(description, config=config)
    operation = schema.find_operation_by_label(label)
    generation = schemathesis.GenerationMode
    borders = schema.iter_coverage_cases(
        operation,
        generation_modes=list(generation),
        generation_config=config.projects.default.generation,
    )
    for case in borders:
        attempt(case)
    for mode in generation if operation.body or operation.path_parameters else [generation.POSITIVE]:
        by_chance = given(operation.as_strategy(generation_mode=mode))(attempt)
        settings(derandomize=True, max_examples=examples, suppress_health_check=list(HealthCheck))(by_chance)()


def fits(case: Any) -> bool:
    """Whether a case fits the description, by which 1.0 is an integer; it is none in canonical JSON."""
    is_asked = case.method == case.operation.method.upper()
    return is_asked and case.meta.generation.mode.is_positive and not _has_floats(case.body)


def _has_floats(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(_has_floats, value.values() if isinstance(value, dict) else value))
    return isinstance(value, float)


def unsigned() -> Json:
    """The description of what only a signature lets in: a path for each call, and statements about a contract."""
    description = copy.deepcopy(DESCRIPTION)
    schemas, more = description["components"]["schemas"], f"{CONTRACT_PATH}/{{digest}}"
    schemas["KnownTask"] = SCHEMAS["Task"]
    schemas["Task"]["properties"]["statements"] = {"type": "array", "items": {"$ref": _schema("Statement")}}
    problems = description["paths"][CALL_PATH]["post"]["responses"]
    add = description["paths"][more]["post"]
    add["responses"]["200"]["content"] = _json("KnownTask")
    description["paths"] = {more: {"parameters": description["paths"][more]["parameters"], "post": add}}
    for name in CALLS:
        responses = {**problems, "200": {"description": "", "content": _json(f"{name}.answer")}}
        body = {"required": True, "content": _json(f"{name}.arguments")}
        description["paths"][f"/{name}"] = {"post": {"requestBody": body, "responses": responses}}
    return description


def _schema(name: str) -> str:
    return f"#/components/schemas/{name}"


def _json(schema: str) -> Json:
    return {"application/json": {"schema": {"$ref": _schema(schema)}}}


class _Pinned(HTTPAdapter):
    """Talks to who has this certificate."""

    def __init__(self, fingerprint: str) -> None:
        self._fingerprint = fingerprint
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options, assert_fingerprint=self._fingerprint)


class Client:
    """Sends cases to a broker.

    Attributes:
        broker: Which.
    """

    def __init__(self, broker: Broker, session: requests.Session) -> None:
        self.broker = broker
        self._session = session
        self._url = f"https://{broker.address.host}:{broker.address.port}"

    def send(self, case: Any, cookie: str | None = None) -> Any:
        """Send a case as it is, within a session or with what it has for one; the answer is as described."""
        options = {"session": self._session, "verify": False, "timeout": _PATIENCE}
        cookies = {"cookies": {COOKIE: cookie}} if cookie else {}
        return case.call_and_validate(base_url=self._url, **options, **cookies)

    def _post(self, path: str, body: bytes, **options: Any) -> requests.Response:
        return self._session.post(self._url + path, body, verify=False, timeout=_PATIENCE, **options)

    def send_signed(self, case: Any) -> requests.Response:
        """Sign what a case of `unsigned` has, and send it; the answer is as described."""
        is_call = not case.path.startswith(CONTRACT_PATH)
        case.body = _about_the_contract(case.body)
        body = case.body if isinstance(case.body, NotSet) else _with_envelopes(case.body)
        if not is_call:
            if re.fullmatch("[0-9a-f]{64}", str(case.path_parameters["digest"])):
                case.path_parameters = {"digest": AGREED.digest}
            data = b"" if isinstance(body, NotSet) else _text(body)
            return self._validated(case, self._post(case.formatted_path, data))
        owner = self.broker.owner
        call = {
            "call": case.path.removeprefix("/"),
            "broker": self.broker.home.identity,
            "signer": str(owner.signer),
            "id": os.urandom(16).hex(),
            "expires": int(time.time()) + LIFETIME,
            **({} if isinstance(body, NotSet) else {"arguments": body}),
        }
        return self._validated(case, self._post(CALL_PATH, _text(_enveloped(call, _CALL_TYPE, owner))))

    @staticmethod
    def _validated(case: Any, response: requests.Response) -> requests.Response:
        case.validate_response(response)
        return response

    def _challenge(self, version: str) -> tuple[str, str]:
        answer = self._post(AUTH_PATH, _text({"version": version, "tee": "sample"}))
        assert answer.status_code == 200
        return answer.headers["set-cookie"].partition(";")[0].partition("=")[2], answer.json()["nonce"]

    def send_proven(self, case: Any, version: str) -> Any:
        """Get a challenge, make a case an answer to it wherever it has the form of one, and `send` that."""
        cookie, nonce = self._challenge(version)
        case.body = _answering(case.body, nonce, self.broker.home.identity, version)
        if COOKIE in (case.cookies or {}):
            case.cookies = {**case.cookies, COOKIE: cookie}
        return self.send(case)

    def attested(self) -> str:
        """The cookie of a session that has proven what can be proven with nothing."""
        cookie, nonce = self._challenge("0.1.1")
        runtime = {"nonce": "", "tee-pubkey": {**jwk_of(_EC[256].public_key())}}
        body = {"runtime-data": runtime, "tee-evidence": {"primary_evidence": {"svn": "1"}}}
        body = _answering(body, nonce, self.broker.home.identity, "0.1.1")
        assert self._post(ATTEST_PATH, _text(body), cookies={COOKIE: cookie}).status_code == 200
        return cookie


@contextmanager
def client(broker: Broker) -> Iterator[Client]:
    """Talk to a broker whose key is pinned."""
    certificate = x509.load_pem_x509_certificate(broker.home.certificate)
    with requests.Session() as session:
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))  # a case has those that it has
        session.mount("https://", _Pinned(certificate.fingerprint(SHA256()).hex()))
        yield Client(broker, session)


def _text(value: Any) -> bytes:
    """JSON; bytes that stand for a value that is none become a string, which is as wrong in its place."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=repr)
    return text.encode("utf-8", "surrogatepass")


def _enveloped(document: Any, payload_type: str, signer: Identity) -> Json:
    envelope = Envelope(_text(document), payload_type, {})
    envelope.sign(signer.signing_key())
    return dict(envelope.to_dict())


def _about_the_contract(body: Any) -> Any:
    """The same, about the contract that the broker knows, by its parties; what has another form stays as it is."""
    body = copy.deepcopy(body)
    task = body.get("task", body) if isinstance(body, dict) else None
    if not isinstance(task, dict):
        return body
    if isinstance(task.get("contract"), dict) and set(task["contract"]) == set(AGREED.to_json()):
        task["contract"] = AGREED.to_json()
    for said in task["statements"] if isinstance(task.get("statements"), list) else []:
        if isinstance(said, dict) and isinstance(said.get("party"), str):
            fitting = {
                "task": AGREED.id,
                "contract": AGREED.digest,
                "party": NAMES[len(said["party"]) % len(NAMES)],
            }
            said.update({name: value for name, value in fitting.items() if isinstance(said.get(name), str)})
    return body


def _with_envelopes(body: Any) -> Any:
    """The same with each statement signed by whom it names."""
    task = body.get("task", body) if isinstance(body, dict) else None
    if not isinstance(task, dict) or not isinstance(task.get("statements"), list):
        return body
    signed = [
        _enveloped(said, f"application/vnd.sealfs.contract.{said.get('action')}+json", identity(said["party"]))
        if isinstance(said, dict) and said.get("party") in NAMES
        else said
        for said in task["statements"]
    ]
    task = {**task, "statements": signed}
    return {**body, "task": task} if "task" in body else task


def _answering(body: Any, nonce: str, broker: str, version: str) -> Any:
    """The same with this challenge's nonce, a key that exists, and sample evidence that is bound to both."""
    body = copy.deepcopy(body)
    runtime = body.get("runtime-data") if isinstance(body, dict) else None
    if not isinstance(runtime, dict):
        return body
    ours = {"nonce": nonce, "broker": broker}
    runtime.update({name: value for name, value in ours.items() if isinstance(runtime.get(name), str)})
    key = runtime.get("tee-pubkey")
    if isinstance(key, dict):
        numbers = _numbers(key)
        key.update({name: value for name, value in numbers.items() if isinstance(key.get(name), str)})
    evidence = body["tee-evidence"].get("primary_evidence") if isinstance(body.get("tee-evidence"), dict) else None
    if isinstance(evidence, dict) and isinstance(key, dict):
        bound = {**runtime, **({"additional-evidence": ""} if version == "0.4.0" else {})}
        names = {"nonce", "tee-pubkey"}
        try:
            data = RuntimeData(
                bound.get("nonce", ""), key, {name: value for name, value in bound.items() if name not in names}
            ).report_data()
        except DocumentError:
            return body
        evidence["report_data"] = base64.b64encode(data).decode()
    return body


def _numbers(key: Json) -> Json:
    if key.get("kty") == "RSA":
        return {"n": b64(_RSA.public_key().public_numbers().n.to_bytes(256, "big"))}
    size = 521 if key.get("crv") == "P-521" else 256
    public = jwk_of(_EC[size].public_key())
    return {"x": public["x"], "y": public["y"]}
