"""The messages, against the protocol's documentation: both sides, with others' implementations at the other end."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st
from jwcrypto.jwe import JWE
from jwcrypto.jwk import JWK

from broker.tools import DEVELOPMENT, Broker, running
from broker.trustee import b64, decrypt, encrypt, jwk_of, kbs, report_data
from sealfs.attestation.binding import RuntimeData
from sealfs.attestation.canonical import Members, canonical
from sealfs.broker import jose
from sealfs.broker.address import BrokerAddress
from sealfs.broker.client import BrokerClient
from sealfs.broker.jose import RunKey, encrypt_to
from sealfs.broker.protocol import Attestation, Challenge, Problem, Request, Resource, bound_data
from sealfs.broker.serve import Options
from sealfs.broker.transport import Connection
from sealfs.errors import BrokerError, DocumentError, KeyRefusedError, UsageError
from sealfs.keys import Identity

EC_KEY = ec.generate_private_key(ec.SECP256R1())


def test_our_client_with_a_trustee_kbs() -> None:
    with kbs() as url:
        client = BrokerClient(BrokerAddress.parse(url), None, trustee=True)
        assert client.secret("default/key/one") == b"the secret"
        with pytest.raises(KeyRefusedError, match="resource not found"):
            client.secret("default/key/two")
        with pytest.raises(KeyRefusedError, match=r"expect =0\.4\.0 while the request is 0\.1\.1"):
            BrokerClient(BrokerAddress.parse(url), None).secret("default/key/one")


class TheirClient:
    """What confidential containers' client sends, message by message."""

    def __init__(self, broker: Broker, version: str = "0.4.0", curve: ec.EllipticCurve | None = None) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self._http = http.client.HTTPSConnection(broker.address.host, broker.address.port, context=context)
        self._key = ec.generate_private_key(curve or ec.SECP256R1())
        self._version = version
        self.cookie = ""
        self.token = ""

    def _ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, str]:
        data = None if body is None else json.dumps(body)
        self._http.request(method, path, data, {"Content-Type": "application/json", **headers})
        answer = self._http.getresponse()
        return answer.status, json.loads(answer.read()), answer.headers.get("set-cookie", "")

    def attest(self) -> tuple[int, Any]:
        algorithms = {"supported-hash-algorithms": ["sha256", "sha384", "sha512"]}
        request = {"version": self._version, "tee": "sample", "extra-params": algorithms}
        status, challenge, cookie = self._ask("POST", "/kbs/v0/auth", request)
        assert status == 200
        assert set(challenge) == {"nonce", "extra-params"}
        self.cookie = cookie.partition(";")[0]
        assert self.cookie.startswith("kbs-session-id=")
        runtime = {"nonce": challenge["nonce"], "tee-pubkey": jwk_of(self._key.public_key())}
        bound = report_data(runtime, "" if self._version == "0.4.0" else None)
        evidence = {"svn": "1", "report_data": base64.b64encode(bound).decode()}
        body = {
            "init-data": None,
            "runtime-data": runtime,
            "tee-evidence": {"primary_evidence": evidence, "additional_evidence": ""},
        }
        status, answer, _ = self._ask("POST", "/kbs/v0/attest", body, Cookie=self.cookie)
        self.token = answer.get("token", "")
        return status, answer

    def resource(self, path: str, by_token: bool = False) -> tuple[int, Any]:
        headers = {"Cookie": self.cookie}
        if by_token:  # beside a cookie that stands for nothing
            headers = {"Authorization": f"Bearer {self.token}", "Cookie": "kbs-session-id=0"}
        status, answer, _ = self._ask("GET", f"/kbs/v0/resource/{path}", **headers)
        return status, decrypt(self._key, answer) if status == 200 else answer

    def close(self) -> None:
        self._http.close()


@pytest.mark.parametrize("version", ["0.1.1", "0.4.0"])
@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP521R1()])
@pytest.mark.parametrize("by_token", [False, True])
def test_their_client_with_our_broker(
    tmp_path: Path, owner: Identity, version: str, curve: ec.EllipticCurve, by_token: bool
) -> None:
    with running(tmp_path, owner, Options(port=0, accept_unbound=True)) as broker:
        keys = broker.publish(DEVELOPMENT)
        client = TheirClient(broker, version, curve)
        status, problem = client.resource(f"owner/{keys.dataset.hex()}/latest")
        assert (status, problem["type"].rpartition("/")[2]) == (401, "TokenNotFound")
        assert client.attest()[0] == 200
        status, secret = client.resource(f"owner/{keys.dataset.hex()}/latest", by_token)
        assert status == 200
        assert json.loads(secret)["keys"] == keys.pack().hex()
        status, problem = client.resource("owner/" + "00" * 16 + "/latest", by_token)
        assert status == 404
        assert set(problem) >= {"type", "detail"}
        client.close()


def test_their_client_where_it_is_not_expected(broker: Broker) -> None:
    client = TheirClient(broker)
    status, problem = client.attest()
    assert (status, problem["type"].rpartition("/")[2]) == (401, "AttestationError")
    assert "names no broker" in problem["detail"]
    client.close()


def test_a_version_that_is_not_spoken(broker: Broker) -> None:
    client = TheirClient(broker)
    request = {"version": "9.9.9", "tee": "sgx", "extra-params": {}}
    status, problem, _ = client._ask("POST", "/kbs/v0/auth", request)
    assert status == 401
    assert "0.1.1" in problem["hint"]
    client.close()


def test_a_token_that_somebody_made(broker: Broker) -> None:
    keys = broker.publish(DEVELOPMENT)
    client = TheirClient(broker)
    for token in ("", "a.b.c", "x" * 10_000, f"{b64(b'{}')}.{b64(b'{}')}.{b64(bytes(64))}"):
        client.token = token
        assert client.resource(f"owner/{keys.dataset.hex()}/latest", by_token=True)[0] == 401
    client.close()


def test_what_we_encrypt_others_open() -> None:
    for curve in (ec.SECP256R1(), ec.SECP521R1()):
        key = ec.generate_private_key(curve)
        assert decrypt(key, encrypt_to(jwk_of(key.public_key()), b"secret")) == b"secret"
    private = rsa.generate_private_key(65537, 2048)
    numbers = private.public_key().public_numbers()
    jwk = {"kty": "RSA", "alg": "RSA-OAEP-256", "n": b64(numbers.n.to_bytes(256, "big")), "e": "AQAB"}
    message = JWE(algs=["RSA-OAEP-256", "A256GCM"])
    message.deserialize(json.dumps(encrypt_to(jwk, b"secret")), JWK.from_pyca(private))
    assert message.payload == b"secret"


def test_what_others_encrypt_we_open() -> None:
    key = RunKey()
    assert key.open(Members(encrypt(key.public, b"secret"), "response")) == b"secret"
    assert key.open(Members(encrypt(key.public, b"secret") | {"aad": ""}, "response")) == b"secret"


@pytest.mark.parametrize("part", ["protected", "encrypted_key", "iv", "ciphertext", "tag"])
def test_a_response_that_was_changed(part: str) -> None:
    key = RunKey()
    response = encrypt(key.public, b"secret")
    for changed in (
        {**response, part: "AAAA" + response[part][4:]},
        {n: v for n, v in response.items() if n != part},
    ):
        with pytest.raises((BrokerError, DocumentError)):
            key.open(Members(changed, "response"))


def test_a_response_that_would_unfold() -> None:
    """Compressed content could be of any size."""
    key = RunKey()
    header = json.dumps({"alg": "ECDH-ES+A256KW", "enc": "A256GCM", "zip": "DEF"})
    message = JWE(
        b"\0" * 10_000, protected=header, recipient=JWK(**{k: v for k, v in key.public.items() if k != "alg"})
    )
    parts = message.serialize(compact=True).split(".")
    response = dict(zip(("protected", "encrypted_key", "iv", "ciphertext", "tag"), parts, strict=True))
    with pytest.raises(DocumentError, match="unknown member 'zip'"):
        key.open(Members(response, "response"))


@pytest.mark.parametrize(
    "change",
    [
        {"kty": "oct"},
        {"crv": "P-384"},
        {"crv": "secp256k1"},
        {"alg": "ECDH-ES"},
        {"alg": "dir"},
        {"x": "AAAA"},
        {"x": ""},
        {"y": None},
        {"d": "AAAA"},
        {"kty": "RSA"},
    ],
)
def test_keys_that_nothing_can_be_encrypted_to(change: dict[str, Any]) -> None:
    with pytest.raises(DocumentError):
        jose.check_public_key({**jwk_of(EC_KEY.public_key()), **change})


def test_a_point_beside_the_curve() -> None:
    jwk = jwk_of(EC_KEY.public_key())
    with pytest.raises(DocumentError, match="no key that this broker can encrypt to"):
        jose.check_public_key({**jwk, "y": jwk["x"]})


def test_weak_rsa() -> None:
    def jwk(key: rsa.RSAPrivateKey) -> dict[str, str]:
        numbers = key.public_key().public_numbers()
        size = (numbers.e.bit_length() + 7) // 8
        n, e = numbers.n.to_bytes(key.key_size // 8, "big"), numbers.e.to_bytes(size, "big")
        return {"kty": "RSA", "alg": "RSA-OAEP-256", "n": b64(n), "e": b64(e)}

    for key in (rsa.generate_private_key(65537, 1024), rsa.generate_private_key(3, 2048)):
        with pytest.raises(DocumentError):
            jose.check_public_key(jwk(key))


def test_the_documented_messages() -> None:
    request = b'{"version": "0.1.1", "tee": "tdx", "extra-params": {}}'
    assert Request.parse(request) == Request("0.1.1", "tdx")
    assert Challenge.parse(b'{"nonce": "bm9uY2U=", "extra-params": ""}') == Challenge("bm9uY2U=")
    selected = '{"nonce": "bm9uY2U=", "extra-params": {"selected-hash-algorithm": %s}}'
    assert Challenge.parse((selected % '"SHA384"').encode()) == Challenge("bm9uY2U=")
    for other in ('"sha512"', "384", "null"):
        with pytest.raises(DocumentError, match="another digest than SHA-384"):
            Challenge.parse((selected % other).encode())
    problem = b'{"type": "https://github.com/confidential-containers/kbs/errors/PolicyDeny", "detail": "no"}'
    assert Problem.parse(problem, 403) == Problem("PolicyDeny", 403, "no")


TEXT = st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1, max_size=20)


@given(
    st.text(st.sampled_from("AZaz09+/="), min_size=1, max_size=40),
    st.dictionaries(TEXT, TEXT, max_size=3),
    st.dictionaries(TEXT, st.one_of(TEXT, st.integers(0, 9), st.booleans()), max_size=3),
)
def test_messages_survive_the_wire(nonce: str, extra: dict[str, str], body: dict[str, Any]) -> None:
    extra = {name: value for name, value in extra.items() if name not in {"nonce", "tee-pubkey"}}
    runtime = RuntimeData(nonce, jwk_of(EC_KEY.public_key()), extra)
    read = Attestation.parse(Attestation(runtime, body).to_bytes())
    assert (read.runtime, read.body) == (runtime, body)
    assert read.runtime.report_data() == runtime.report_data()
    assert bound_data("0.1.1", runtime) == runtime
    assert bound_data("0.4.0", runtime).report_data() != runtime.report_data()


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**60), 2**60), st.floats(), st.text(max_size=10)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=10), inner, max_size=3)),
    max_leaves=8,
)


@given(st.one_of(st.binary(max_size=200), JSON.map(lambda value: json.dumps(value).encode())))
def test_nothing_else_comes_of_bad_messages(data: bytes) -> None:
    for parse in (Request.parse, Challenge.parse, Attestation.parse):
        with suppress(DocumentError):
            parse(data)
    with suppress(BrokerError):
        Problem.parse(data, 400)


@pytest.mark.parametrize(
    "path", ["owner/x/latest", "owner/" + "0" * 32 + "/0", "Owner/" + "0" * 32 + "/1", "../" + "0" * 32 + "/latest"]
)
def test_paths_that_name_nothing(path: str) -> None:
    with pytest.raises(DocumentError):
        Resource.parse(*path.split("/"))


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("https://127.0.0.1:8600#sha256:" + "0" * 64, True),
        ("https://keys.example", True),
        ("https://[::1]:8600/kbs-behind-a-proxy", True),
        ("http://127.0.0.1:8080", True),
        ("http://keys.example", False),
        ("http://127.0.0.1#sha256:" + "0" * 64, False),
        ("ftp://x", False),
        ("https://", False),
        ("https://user@host", False),
        ("https://host:99999", False),
        ("https://host?x", False),
        ("https://host#sha256:00", False),
        ("https://ho st", False),
        ("x" * 5000, False),
    ],
)
def test_addresses(text: str, good: bool) -> None:
    if good:
        address = BrokerAddress.parse(text)
        assert BrokerAddress.parse(str(address)) == address
    else:
        with pytest.raises(UsageError):
            BrokerAddress.parse(text)


def test_a_secret_is_never_in_a_repr(broker: Broker) -> None:
    keys = broker.publish(DEVELOPMENT)
    released = broker.client().resource("owner", keys.dataset)
    assert keys.pack().hex()[8:] not in repr(released)
    assert canonical(RunKey().public).decode() not in repr(RunKey())


def test_an_answer_that_never_ends(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sealfs.broker.transport.MAX_ANSWER_SIZE", 10)
    with Connection(broker.address) as connection, pytest.raises(BrokerError, match="more than 10 bytes"):
        connection.ask("GET", "/metrics")
