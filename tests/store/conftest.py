"""Stores to test: the local one, and S3 on real servers that live for the whole test session."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.loaders import create_loader
from servers import Server, ceph_server, moto_server, seaweedfs_server

from sealfs.store.base import ObjectStore
from sealfs.store.local import LocalStore
from sealfs.store.s3 import S3Store

BUCKET = "sealfs-tests"


def _with_bucket(server: Server) -> Server:
    server.create_bucket(BUCKET)
    return server


@pytest.fixture(scope="session")
def moto() -> Iterator[Server]:
    with moto_server() as server:
        yield _with_bucket(server)


@pytest.fixture(scope="session")
def seaweedfs() -> Iterator[Server]:
    with seaweedfs_server() as server:
        yield _with_bucket(server)


@pytest.fixture(scope="session")
def ceph() -> Iterator[Server]:
    with ceph_server() as server:
        yield _with_bucket(server)


@pytest.fixture(scope="session", autouse=True)
def _read_service_model_once() -> Iterator[None]:
    # botocore reads its JSON files anew for each session, a quarter of a second each time.
    loader = create_loader()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("botocore.session.create_loader", lambda paths: loader)
        yield


@pytest.fixture(autouse=True)
def _no_aws_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(
    params=[
        "local",
        "moto",
        pytest.param("seaweedfs", marks=pytest.mark.slow),
        pytest.param("ceph", marks=pytest.mark.slow),
    ]
)
def kind(request: pytest.FixtureRequest) -> str:
    """Which store is under test."""
    return str(request.param)


@pytest.fixture
def store(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ObjectStore]:
    """An empty store."""
    opened: ObjectStore
    if kind == "local":
        opened = LocalStore(tmp_path / "store")
    else:
        server: Server = request.getfixturevalue(kind)
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        opened = S3Store(BUCKET, f"run/{uuid.uuid4().hex}")
    yield opened
    opened.close()
