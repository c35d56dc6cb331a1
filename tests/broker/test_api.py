"""The HTTP API against its description (docs/broker-openapi.json), with what schemathesis makes of it.

Whatever is asked, statuses, headers, content types and bodies are as described, nothing is a fault of the broker's,
what fits the description is understood, and what does not is refused. That goes for what lies behind a signature or
a challenge, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from contracts.parties import identity

from broker.api import AGREED, CALLS, DESCRIPTION, SCHEMAS, Client, client, explore, fits, operations, unsigned
from broker.tools import DEVELOPMENT, running
from sealfs.attestation.policy import Policy
from sealfs.attestation.verify import Verifier
from sealfs.broker import serve
from sealfs.broker.protocol import ATTEST_PATH, AUTH_PATH, DATASET, OWNER, RESOURCE_PATH
from sealfs.broker.serve import Options
from sealfs.broker.server import Limits
from sealfs.contracts.checks import NAME
from sealfs.contracts.task import Task
from sealfs.dataset.keyring import DatasetKeys

UNSIGNED = unsigned()
KEYS = DatasetKeys.generate(bytes(16))  # of the dataset that the description has as an example
LOOKS = {"hello", "dataset", "datasets", "manifests", "members", "enrolled", "log"}
BIG = ("/contract", "publish", "set-policy")  # take seconds to make cases for
MISUNDERSTOOD = re.compile("has no valid '|unknown member|is not a JSON object|is not valid JSON|malformed")


@contextmanager
def served(folder: Path) -> Iterator[Client]:
    """A broker that has a dataset and a contract, and lets one address ask as often as it likes."""
    options = Options(port=0, limits=Limits(rate=1e9, burst=10**9), accept_unbound=True)
    with running(folder, identity("bank-a"), options) as broker, client(broker) as found:
        broker.publish(DEVELOPMENT, KEYS)
        broker.member().call("contract", {"task": Task(AGREED).to_json()})
        yield found
        assert list(broker.member().log())  # each record of which is verified


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A broker on which all tests here leave their traces."""
    with served(tmp_path_factory.mktemp("api")) as found:
        yield found


def understood(response: Any) -> None:
    """What was sent may be refused, but not as something that it is not."""
    if response.status_code in (400, 401):
        assert not MISUNDERSTOOD.search(response.json()["detail"]), response.json()


def tried(description: dict[str, Any]) -> list[Any]:
    """Each operation with a number of examples; what takes longer is slow."""
    labels = {label: any(word in label for word in BIG) for label in operations(description)}
    quick = [(label, 5) for label, is_big in labels.items() if not is_big]
    return quick + [pytest.param(label, 10 if labels[label] else 40, marks=pytest.mark.slow) for label in labels]


@pytest.mark.parametrize(("label", "examples"), tried(DESCRIPTION))
def test_every_operation(label: str, examples: int, api: Client) -> None:
    def attempt(case: Any) -> None:
        response = api.send(case)
        if fits(case) and not case.path.startswith("/sealfs/"):
            understood(response)
            assert case.path != AUTH_PATH or response.status_code == 200

    explore(DESCRIPTION, label, examples, attempt)


@pytest.mark.parametrize(("label", "examples"), tried(UNSIGNED))
def test_what_lies_behind_a_signature(label: str, examples: int, api: Client) -> None:
    def attempt(case: Any) -> None:
        if case.method == "POST":
            response = api.send_signed(case)
            if fits(case):
                understood(response)
                assert case.path.removeprefix("/") not in LOOKS or response.status_code == 200

    explore(UNSIGNED, label, examples, attempt)


@pytest.mark.parametrize("version", ["0.1.1", "0.4.0"])
def test_what_lies_behind_a_challenge(version: str, api: Client) -> None:
    def attempt(case: Any) -> None:
        response = api.send_proven(case, version)
        if fits(case):
            assert response.status_code == 200, response.json()

    explore(DESCRIPTION, f"POST {ATTEST_PATH}", 5, attempt)


def test_what_lies_behind_evidence(tmp_path: Path) -> None:
    statuses = set()
    (label,) = (label for label in operations(DESCRIPTION) if RESOURCE_PATH in label)
    with served(tmp_path) as api:
        cookie = api.attested()

        def attempt(case: Any) -> None:
            response = api.send(case, cookie)
            if fits(case):
                statuses.add(response.status_code)

        explore(DESCRIPTION, label, 20, attempt)
    assert statuses == {200, 404}


def test_nothing_is_left_out_of_the_description(api: Client) -> None:
    """All routes and methods are described, and all calls, and nothing else is."""
    server = serve.application(api.broker.home, lambda enrolled: Verifier(), Options())
    routes = {f"{method} {route.path}" for route in server.app.routes for method in route.methods - {"HEAD"}}
    assert routes == set(operations(DESCRIPTION))
    calls = server._admin._looks.keys() | server._admin._changes.keys()
    assert calls == set(CALLS) == set(SCHEMAS["Call"]["properties"]["call"]["enum"])
    assert calls == {name.removesuffix(".answer") for name in SCHEMAS if name.endswith(".answer")}


@pytest.mark.parametrize(("schema", "pattern"), [("Name", OWNER), ("DatasetId", DATASET), ("Party", NAME)])
def test_patterns_are_the_parsers_own(schema: str, pattern: str) -> None:
    assert SCHEMAS[schema]["pattern"] == f"^{pattern}$"


def test_members_are_the_parsers_own() -> None:
    everything = Policy(revocation_list=False, contract=True, pcrs="sha256:0").to_json()
    assert SCHEMAS["Policy"]["properties"].keys() == everything.keys()
    assert SCHEMAS["Contract"]["properties"].keys() == AGREED.to_json().keys()
