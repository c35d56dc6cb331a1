"""A store in a bucket of S3 or of a server that speaks its protocol.

Exists to make the very different S3 servers keep the promises of `ObjectStore`: whole bodies or an error,
conditional writes that hold, and errors that say what to do. All of AWS's own configuration (environment,
profiles, endpoints, regions, retries) works unchanged, because botocore, the core of boto3, reads it.

Threading: all methods may be called from many threads; up to `concurrency` of them have a connection each.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import botocore.exceptions as aws
import urllib3.exceptions
from botocore.config import Config
from botocore.parsers import ResponseParserError
from botocore.session import get_session

from sealfs.errors import (
    ObjectNotFoundError,
    ObjectSizeError,
    PreconditionFailedError,
    SealfsError,
    StoreError,
)
from sealfs.store.base import ObjectInfo, ReadableBuffer
from sealfs.store.names import check_key, check_prefix, is_key

_T = TypeVar("_T")
_ATTEMPTS: Final = 5  # tries in all, unless the AWS configuration says otherwise
_STEP: Final = 1 << 20  # bytes per read of a body
_BATCH: Final = 1000  # S3's limit for one DeleteObjects
_BROKEN: Final = (aws.BotoCoreError, urllib3.exceptions.HTTPError, http.client.HTTPException, OSError)
# ValueError and KeyError: what botocore makes of nonsense in an answer or in the configuration.
_ERRORS: Final = (*_BROKEN, aws.ClientError, ResponseParserError, ValueError, KeyError)

_CREDENTIALS: Final = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or log in again"
_RIGHTS: Final = (
    "the credentials need s3:GetObject and s3:ListBucket, and to push s3:PutObject and s3:DeleteObject "
    "(without s3:ListBucket a missing object looks like this too)"
)
_TOLD: Final = {  # by code, or by status where an answer has no body
    code: words
    for codes, *words in (
        ("AccessDenied 403", "access denied", _RIGHTS),
        ("NoSuchBucket", "there is no such bucket", "check its name and AWS_ENDPOINT_URL, or create it"),
        ("ExpiredToken TokenRefreshRequired", "the credentials have expired", _CREDENTIALS),
        ("InvalidAccessKeyId", "the store does not know this access key", _CREDENTIALS),
        ("InvalidToken", "the session token is not valid", _CREDENTIALS),
        ("SignatureDoesNotMatch", "the secret key is wrong", _CREDENTIALS),
        ("RequestTimeTooSkewed", "this machine's clock is wrong", "set the clock, for example with NTP"),
        (
            "PermanentRedirect AuthorizationHeaderMalformed 301",
            "the bucket is in another region",
            "set AWS_DEFAULT_REGION to the region of the bucket",
        ),
        ("SlowDown ServiceUnavailable 429 503", "the store is overloaded", "try again later"),
        ("QuotaExceeded 507", "the store is full", "free some space or raise the quota"),
    )
    for code in codes.split()
}
_NO_CREDENTIALS: Final = (
    *(aws.NoCredentialsError, aws.PartialCredentialsError, aws.CredentialRetrievalError),
    *(aws.NoAuthTokenError, aws.TokenRetrievalError, aws.SSOError, aws.MetadataRetrievalError),
)
_FAILED: Final = (  # the first that fits
    (_NO_CREDENTIALS, "no usable AWS credentials", _CREDENTIALS),
    (aws.ProfileNotFound, "there is no such AWS profile", "check AWS_PROFILE and ~/.aws/config"),
    (aws.SSLError, "no trusted TLS connection to {}", "for a private authority set AWS_CA_BUNDLE"),
    (
        (*_BROKEN[1:], aws.HTTPClientError, aws.ConnectionError, aws.IncompleteReadError),
        "no complete answer from {}",
        "check AWS_ENDPOINT_URL, the network and whether the server runs",
    ),
    (Exception, "{} makes no sense", "check the AWS configuration and that this is an S3 server"),
)


class S3Store:
    """Objects below a prefix in a bucket. Nothing is contacted before the first method call.

    Args:
        bucket: Name of the bucket.
        prefix: Folder in it, without slashes at its ends; empty for the whole bucket.
        concurrency: How many threads may be served at once, that is, connections kept.
        connect_timeout: Seconds for each try to connect.
        read_timeout: Seconds without a byte from the server until a try is given up.

    Raises:
        StoreError: The AWS configuration is unusable.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        concurrency: int = 32,
        connect_timeout: float = 10.0,
        read_timeout: float = 30.0,
    ) -> None:
        self._bucket = bucket
        self._prefix = prefix + "/" if prefix else ""
        self._uri = f"s3://{bucket}/{prefix}".rstrip("/")
        self._server = "the AWS configuration"
        with self._telling("use"):
            self._client: Any = _client(
                max_pool_connections=concurrency, connect_timeout=connect_timeout, read_timeout=read_timeout
            )
            self._attempts: int = self._client.meta.config.retries["total_max_attempts"]
            self._server = urlsplit(self._client.meta.endpoint_url).netloc.rpartition("@")[2]
        self._conditional: bool | None = None
        self._conditional_lock = threading.Lock()
        self._quoted = True
        self._batches = True

    @property
    def uri(self) -> str:
        """The s3:// address. It does not tell the server, which is configured elsewhere."""
        return self._uri

    def get(self, key: str, *, max_size: int) -> tuple[bytes, str]:
        """Return an object's bytes and its etag; see `ObjectStore.get`."""
        name = self._name(key)

        def step() -> tuple[bytes, str]:
            with self._telling("read", key):
                answer = self._client.get_object(Bucket=self._bucket, Key=name)
            with contextlib.closing(answer["Body"]) as body:
                size = answer.get("ContentLength")
                if size is None or size > max_size:
                    raise ObjectSizeError(f"{key} has {size} bytes, at most {max_size} are allowed")
                data: bytes = body.read()
                return data, _bare(answer)

        return self._again(key, step)

    def read_into(self, key: str, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset` bytes on; see `ObjectStore.read_into`."""
        name = self._name(key)
        rest = buffer.cast("B")

        def step() -> None:
            nonlocal rest, offset
            wanted = f"bytes={offset}-{offset + len(rest) - 1}"
            with self._telling("read", key):
                answer = self._client.get_object(Bucket=self._bucket, Key=name, Range=wanted)
            with contextlib.closing(answer["Body"]) as body:
                self._check_range(key, answer, offset, len(rest))
                while rest:
                    count = body.readinto(rest[:_STEP])
                    if not count:
                        raise http.client.IncompleteRead(b"", len(rest))
                    rest = rest[count:]
                    offset += count

        if rest:
            self._again(key, step)

    def put(self, key: str, data: ReadableBuffer, *, if_absent: bool = False, if_match: str | None = None) -> str:
        """Write an object, return its etag; see `ObjectStore.put`. A first condition calls for the probe."""
        if (if_absent or if_match is not None) and not self.has_conditional_writes():
            raise StoreError(
                f"the server of {self._uri} has no conditional writes",
                "use a server that has them: AWS S3, Ceph, MinIO, SeaweedFS",
            )
        return self._put(key, data, if_absent, if_match)

    def stat(self, key: str) -> ObjectInfo:
        """Describe one object; see `ObjectStore.stat`."""
        name = self._name(key)
        with self._telling("look at", key):
            answer = self._client.head_object(Bucket=self._bucket, Key=name)
            modified = answer["LastModified"].timestamp()
            return ObjectInfo(key, answer["ContentLength"], _bare(answer), modified)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield all objects whose key starts with `prefix`; see `ObjectStore.list`."""
        check_prefix(prefix)
        pages = self._client.get_paginator("list_objects_v2")
        with self._telling("list", prefix):
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                for entry in page.get("Contents", ()):
                    key = entry["Key"].removeprefix(self._prefix)
                    if is_key(key):  # others' objects and "folders" are no objects of ours
                        modified = entry["LastModified"].timestamp()
                        yield ObjectInfo(key, entry["Size"], _bare(entry), modified)

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; see `ObjectStore.delete`."""
        names = [self._name(key) for key in keys]
        for start in range(0, len(names), _BATCH):
            batch: Sequence[str] = names[start : start + _BATCH]
            if len(batch) > 1 and self._batches:
                batch = self._delete_batch(batch)
            for name in batch:
                key = name.removeprefix(self._prefix)
                with contextlib.suppress(ObjectNotFoundError), self._telling("delete", key):
                    self._client.delete_object(Bucket=self._bucket, Key=name)

    def has_conditional_writes(self) -> bool:
        """Whether conditional writes hold here, found out with a probe object; see `ObjectStore`."""
        with self._conditional_lock:
            if self._conditional is None:
                key = f"probe-{secrets.token_hex(8)}"
                try:
                    self._conditional = self._probe(key)
                finally:
                    with contextlib.suppress(SealfsError):
                        self.delete([key])
            return self._conditional

    def close(self) -> None:
        """Close the connections, as soon as the garbage collector finds them."""
        self._client.close()

    def _name(self, key: str) -> str:
        check_key(key)
        return self._prefix + key

    def _put(self, key: str, data: ReadableBuffer, if_absent: bool, if_match: str | None) -> str:
        condition = {"IfNoneMatch": "*"} if if_absent else {}
        if if_match is not None:
            condition["IfMatch"] = f'"{if_match}"' if self._quoted else if_match
        name = self._name(key)
        body = data if isinstance(data, bytes) else _View(data)
        try:
            answer = self._client.put_object(Bucket=self._bucket, Key=name, Body=body, **condition)
        except aws.ClientError as error:
            if not condition or not _lost(error, if_match is not None):
                raise self._translated(error, "write", key) from None
            # A first try may have succeeded and only its answer got lost; then the retry lost against it.
            retried = error.response["ResponseMetadata"].get("RetryAttempts")
            etag = self._etag_if_same(key, data) if retried else None
            if etag is None:
                raise PreconditionFailedError(f"{key} was changed by somebody else") from None
            return etag
        except _ERRORS as error:
            raise self._translated(error, "write", key) from None
        return _bare(answer)

    def _etag_if_same(self, key: str, data: ReadableBuffer) -> str | None:
        try:
            found, etag = self.get(key, max_size=memoryview(data).nbytes)
        except StoreError:
            return None
        return etag if found == memoryview(data).cast("B") else None

    def _probe(self, key: str) -> bool:
        def takes(data: bytes, if_absent: bool = False, if_match: str | None = None) -> bool:
            try:
                self._put(key, data, if_absent, if_match)
            except PreconditionFailedError:
                return False
            return True

        with contextlib.suppress(_UnsupportedError):
            etag = self._put(key, b"1", True, None)
            if takes(b"2", if_absent=True) or takes(b"3", if_match=secrets.token_hex(16)):
                return False
            for self._quoted in (True, False):  # Ceph 16 compares raw strings and never finds the quotes
                if takes(b"4", if_match=etag):
                    return not takes(b"5", if_match=etag)
        return False

    def _check_range(self, key: str, answer: Any, offset: int, size: int) -> None:
        """Believe only an answer that says that it is the range asked for."""
        stated = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", answer.get("ContentRange") or "")
        if _status(answer) != 206 or stated is None or int(stated[1]) != offset:
            raise StoreError(
                f"the server of {self._uri} ignores byte ranges",
                "use a server that has them, and check what proxies are in between",
            )
        if int(stated[2]) != offset + size - 1 or answer.get("ContentLength") != size:
            raise ObjectSizeError(f"{key} ends too early")

    def _again(self, key: str, step: Callable[[], _T]) -> _T:
        """Repeat a step whose body breaks off; errors before the body were retried by botocore already."""
        for tried in range(1, self._attempts):
            try:
                return step()
            except _BROKEN:
                time.sleep(random.uniform(0, min(20, 2 ** (tried - 1))))  # noqa: S311 (no secret)
        with self._telling("read", key):
            return step()

    def _delete_batch(self, names: Sequence[str]) -> Sequence[str]:
        """Delete many objects in one request; return those to be deleted one by one."""
        doomed = {"Objects": [{"Key": name} for name in names], "Quiet": True}
        with self._telling("delete"):
            try:
                answer = self._client.delete_objects(Bucket=self._bucket, Delete=doomed)
            except (aws.ClientError, ResponseParserError):
                # Some servers lack it, others insist on Content-MD5. A real obstacle shows again below.
                self._batches = False
                return names
            return [failed["Key"] for failed in answer.get("Errors", ())]

    @contextlib.contextmanager
    def _telling(self, deed: str, key: str = "") -> Iterator[None]:
        try:
            yield
        except _ERRORS as error:
            # Not chained: the texts of botocore may quote addresses with passwords, and server's words.
            raise self._translated(error, deed, key) from None

    def _translated(self, error: Exception, deed: str, key: str) -> StoreError:
        what = f"cannot {deed} {self._uri}/{key}".rstrip("/")
        if isinstance(error, aws.ClientError):
            code, status = _code(error), _status(error.response)
            if code in {"NoSuchKey", "404"}:
                return ObjectNotFoundError(
                    f"there is no object {self._uri}/{key}", "check the address of the store"
                )
            if code == "NotImplemented" or status == 501:
                return _UnsupportedError(f"{what}: the server does not support it")
            if code in {"InvalidRange", "416"}:
                return ObjectSizeError(f"{key} ends too early")
            unknown = (f"the store answered {code} ({status})", "")
            told, hint = _TOLD.get(code) or _TOLD.get(str(status)) or unknown
            return StoreError(f"{what}: {told}", hint)
        told, hint = next(words for types, *words in _FAILED if isinstance(error, types))
        return StoreError(f"{what}: {told.format(self._server)} ({type(error).__name__})", hint)


class _UnsupportedError(StoreError):
    """The server says that it lacks this function."""


class _View:
    """A buffer as the file botocore wants, without copying it as `io.BytesIO` would."""

    def __init__(self, data: ReadableBuffer) -> None:
        self._data = memoryview(data).cast("B")
        self._position = 0

    def read(self, size: int | None = -1) -> memoryview:
        end = len(self._data) if size is None or size < 0 else self._position + size
        piece = self._data[self._position : end]
        self._position += len(piece)
        return piece

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + {os.SEEK_CUR: self._position, os.SEEK_END: len(self._data)}.get(whence, 0)
        return self._position

    def tell(self) -> int:
        return self._position


def _client(**settings: Any) -> Any:
    """Return an S3 client set up by the AWS configuration, and by what suits sealfs where that is silent."""
    session = get_session()  # type: ignore[no-untyped-call]
    profile = session.get_scoped_config()

    def is_set(name: str) -> bool:
        return name in profile or f"AWS_{name.upper()}" in os.environ

    if not is_set("retry_mode"):
        settings["retries"] = {"mode": "standard"}
    if not is_set("max_attempts"):
        settings.setdefault("retries", {})["total_max_attempts"] = _ATTEMPTS
    client = session.create_client("s3", config=Config(**settings))  # type: ignore[no-untyped-call]
    host = urlsplit(client.meta.endpoint_url).hostname or ""
    if host.endswith((".amazonaws.com", ".amazonaws.com.cn")):
        return client
    client.close()
    # Other servers: few have a name per bucket, and some fail on checksums they do not know.
    if "addressing_style" not in (profile.get("s3") or {}):
        settings["s3"] = {"addressing_style": "path"}
    for name in ("request_checksum_calculation", "response_checksum_validation"):
        if not is_set(name):
            settings[name] = "when_required"
    return session.create_client("s3", config=Config(**settings))  # type: ignore[no-untyped-call]


def _status(answer: Any) -> int:
    return int(answer["ResponseMetadata"]["HTTPStatusCode"])


def _code(error: aws.ClientError) -> str:
    """Return the server's error code, if it looks like one."""
    code = str((error.response.get("Error") or {}).get("Code") or "")
    return code if re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", code) else "an unknown error"


def _lost(error: aws.ClientError, replacing: bool) -> bool:
    """Whether an error says that the condition of a conditional write did not hold."""
    return _status(error.response) in {409, 412} or (replacing and _code(error) in {"NoSuchKey", "404"})


def _bare(answer: Any) -> str:
    """Return the etag without quotes: how to quote it is found out by the probe."""
    return str(answer.get("ETag") or "").strip('"')
