"""What users write of datasets and paths: one reading, and what contradicts itself is refused."""

from __future__ import annotations

import pytest

from sealfs.errors import UsageError
from sealfs.keys import Identity
from sealfs.placement import DataMount, check_apart, for_paths, parse_placed, split_path, with_signers


@pytest.mark.parametrize(
    ("text", "address", "version", "path"),
    [
        ("s3://bucket/eyes:/data", "s3://bucket/eyes", None, "/data"),
        ("s3://bucket/eyes@3:/data/", "s3://bucket/eyes", 3, "/data"),
        (f"s3://bucket@sha256:{'ab' * 32}:/a b/c", "s3://bucket", bytes.fromhex("ab" * 32), "/a b/c"),
        ("/store:with colon:/data", "file:///store%3Awith%20colon", None, "/data"),
        ("file:///store@12:/a=b", "file:///store", 12, "/a=b"),
    ],
)
def test_data(text: str, address: str, version: int | bytes | None, path: str) -> None:
    data = DataMount.parse(text)
    assert data == DataMount(address, version, path)
    assert DataMount.parse(str(data)) == data


@pytest.mark.parametrize("text", ["", "/store", "s3://bucket/prefix", ":/data", "/store:data", "/store:/a:b"])
def test_no_path(text: str) -> None:
    with pytest.raises(UsageError, match="is not URI:/path"):
        parse_placed(text)


def test_signer_of_one_and_of_all() -> None:
    one, rest = Identity.generate().signer, Identity.generate().signer
    data = [DataMount.parse(f"/store{n}:/data/{n}") for n in range(3)]
    assert split_path("/data/1/=x=y") == ("/data/1", "x=y")
    assert split_path(str(one)) == (None, str(one))
    found = with_signers(data, [("/data/1", one), (None, rest)])
    assert [mount.signer for mount in found] == [rest, one, rest]
    assert [mount.signer for mount in with_signers(data, [("/data/2", one)])] == [None, None, one]
    with pytest.raises(UsageError, match=r"--signer names /data, where there is no dataset"):
        with_signers(data, [("/data", one)])
    with pytest.raises(UsageError, match="twice for /data/1"):
        with_signers(data, [("/data/1", one), ("/data/1", rest)])
    with pytest.raises(UsageError, match="twice for all"):
        for_paths([(None, 1), (None, 2)], ["/data/1"], "--signer")


def test_paths_in_one_another() -> None:
    check_apart(["/data", "/database", "/out"])
    for paths in (["/data", "/out", "/data/out"], ["/a", "/a"], ["/", "/x"]):
        with pytest.raises(UsageError, match="lie in one another"):
            check_apart(paths)
