"""Addresses of stores: what a user may write, and which store it means.

Exists so that each place has exactly one normalized address. Everything here is stateless and may be called from
any thread.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote_to_bytes

from sealfs.errors import UsageError
from sealfs.store.base import ObjectStore
from sealfs.store.local import LocalStore
from sealfs.store.names import problem_with

_FORMS = "use s3://BUCKET/PREFIX, file:///PATH or a plain path"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")


def open_store(uri: str) -> ObjectStore:
    """Return the store at an address. Nothing is contacted or created yet.

    Args:
        uri: `s3://bucket/prefix`, `file:///path` or a plain path.

    Raises:
        UsageError: The address makes no sense, or S3 is asked for and boto3 is not installed.
        StoreError: The AWS configuration is unusable.
    """
    address = normalize(uri)
    if address.startswith("s3://"):
        try:
            from sealfs.store.s3 import S3Store  # noqa: PLC0415 (boto3 is optional)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in {"boto3", "botocore"}:
                raise
            raise UsageError("s3:// addresses need boto3", "pip install 'sealfs[s3]'") from None
        bucket, _, prefix = address.removeprefix("s3://").partition("/")
        return S3Store(bucket, prefix)
    return LocalStore(_file_path(address))


def normalize(uri: str) -> str:
    """Return the one spelling of an address: `s3://bucket[/prefix]` or `file:///absolute/path`.

    Symbolic links on the way to a local folder are resolved, so that one place has one name.

    Raises:
        UsageError: The address makes no sense.
    """
    if not uri or not uri.isprintable():
        raise UsageError(f"not an address: {uri!r}", _FORMS)
    match = _SCHEME.match(uri)
    if match is None:
        if re.match(r"(s3|file):", uri, re.IGNORECASE):
            raise UsageError(f"not an address: {uri!r}", f"the slashes are missing: {_FORMS}")
        return _file_uri(uri)
    scheme = match[1].lower()
    if scheme == "s3":
        return _normalize_s3(uri[match.end() :])
    if scheme == "file":
        return _file_uri(_file_path(uri))
    # The rest of the address stays untold here and below: it may hold a password.
    hint = _FORMS
    if scheme in {"http", "https"}:
        hint = f"for an S3 server set AWS_ENDPOINT_URL={scheme}://HOST:PORT and use s3://BUCKET/PREFIX"
    raise UsageError(f"no store for addresses with {scheme}://", hint)


def _normalize_s3(rest: str) -> str:
    bucket, _, prefix = rest.partition("/")
    if "@" in bucket:
        raise UsageError(
            "credentials do not belong in an address",
            "use AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a profile (AWS_PROFILE)",
        )
    if not _BUCKET.fullmatch(bucket):
        what = f"{bucket!r} is no bucket name" if bucket else "the bucket's name is missing"
        raise UsageError(f"{what} in an s3:// address", _FORMS)
    prefix = prefix.removesuffix("/")
    if not prefix:
        return f"s3://{bucket}"
    problem = problem_with(prefix)
    if problem:
        raise UsageError(f"the prefix of s3://{bucket}/{prefix} {problem}", _FORMS)
    return f"s3://{bucket}/{prefix}"


def _file_path(uri: str) -> str:
    host, slash, path = uri[len("file://") :].partition("/")
    if host.lower() not in {"", "localhost"} or not slash:
        raise UsageError("a file:// address needs an absolute path", "write three slashes: file:///PATH")
    plain = os.fsdecode(unquote_to_bytes("/" + path))
    if "\0" in plain:
        raise UsageError("a file:// address with a NUL byte", _FORMS)
    return plain


def _file_uri(path: str) -> str:
    return Path(os.path.realpath(path)).as_uri()
