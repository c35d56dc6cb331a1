"""Which addresses are understood, and that one place has one name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealfs.errors import UsageError
from sealfs.store.address import normalize, open_store
from sealfs.store.local import LocalStore


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("S3://bucket/a/b/", "s3://bucket/a/b"),
        ("s3://my.Bucket_1/a b/ü%20?x#y", "s3://my.Bucket_1/a b/ü%20?x#y"),
        ("file:///no/such/../place/", "file:///no/place"),
        ("file://localhost/a%20b", "file:///a%20b"),
        ("FILE:///a", "file:///a"),
        ("/a b//c/./d", "file:///a%20b/c/d"),
        ("/100%25", "file:///100%2525"),
        ("/a:b", "file:///a%3Ab"),
    ],
)
def test_normalize(written: str, normal: str) -> None:
    assert normalize(written) == normal
    assert normalize(normal) == normal


def test_relative_paths_and_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    wanted = (tmp_path.resolve() / "real").as_uri()
    assert {normalize("real"), normalize("./link/"), normalize(str(tmp_path / "link"))} == {wanted}


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("", "not an address"),
        ("s3:bucket/x", "not an address"),
        ("file:/x", "not an address"),
        ("a\0b", "not an address"),
        ("s3://", "name is missing"),
        ("s3:///prefix", "name is missing"),
        ("s3://x", "no bucket name"),
        ("s3://-bucket", "no bucket name"),
        ("s3://bucket:9000/x", "no bucket name"),
        ("s3://bucket//x", "empty"),
        ("s3://bucket/x//", "empty"),
        ("s3://bucket/a/../b", "empty, '.' or '..'"),
        ("s3://bucket/a\\b", "backslash"),
        ("file://host/x", "absolute"),
        ("file://x", "absolute"),
        ("file://", "absolute"),
        ("file:///a%00b", "NUL"),
        ("gs://bucket/x", "gs://"),
        ("https://minio:9000/bucket", "https://"),
    ],
)
def test_what_makes_no_sense_is_told(written: str, words: str) -> None:
    for function in (normalize, open_store):
        with pytest.raises(UsageError, match=words) as caught:
            function(written)
        assert caught.value.hint


@pytest.mark.parametrize("address", ["s3://KEY:hush@bucket/x", "https://user:hush@host/x", "ftp://u:hush@h"])
def test_passwords_are_not_repeated(address: str) -> None:
    with pytest.raises(UsageError) as caught:
        normalize(address)
    assert "hush" not in f"{caught.value} {caught.value.hint}"


@settings(max_examples=50)
@given(st.text())
def test_any_text_is_normal_or_an_error(text: str) -> None:
    try:
        normal = normalize(text)
    except UsageError:
        return
    assert normal.startswith(("s3://", "file:///"))
    assert normalize(normal) == normal


@given(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=50))
def test_paths_survive_as_addresses(name: str) -> None:
    path = os.path.realpath("/" + name)
    assert open_store(normalize(path)).uri == LocalStore(path).uri == normalize(path)


def test_open_s3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    store = open_store("s3://bucket/a/b/")
    assert store.uri == "s3://bucket/a/b"
    store.close()


@pytest.mark.parametrize("module", ["boto3", "botocore"])
def test_without_boto3(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    # Removed by prefix: a module that is loaded already would be found in spite of the missing package.
    for name in [name for name in sys.modules if name.partition(".")[0] in {"boto3", "botocore"}]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "sealfs.store.s3", raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    if module == "boto3":  # only its core is imported
        open_store("s3://bucket").close()
        return
    with pytest.raises(UsageError, match="boto3") as caught:
        open_store("s3://bucket")
    assert caught.value.hint == "pip install 'sealfs[s3]'"


def test_a_local_store_needs_no_boto3(tmp_path: Path) -> None:
    code = (
        "import sys; from sealfs.store.address import open_store; open_store(sys.argv[1]).put('a', b'');"
        "sys.exit(any(name.partition('.')[0] in {'boto3', 'botocore', 'urllib3'} for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "x")], check=False).returncode == 0
