"""Names of objects: which are allowed, so that no name can ever leave its store's folder.

Everything here is stateless and may be called from any thread.
"""

from __future__ import annotations

from sealfs.errors import StoreError

_MAX_KEY, _MAX_PART = 1024, 255  # bytes: S3's limit for a key, Linux's for a file name


def check_key(key: str) -> None:
    """Refuse an object name that is not the same plain name everywhere.

    Raises:
        StoreError: It is empty, absolute, too long, or has an empty, "." or ".." part, backslashes or control
            characters.
    """
    problem = problem_with(key)
    if problem:
        raise StoreError(f"the object name {key!r} {problem}", "the store or the caller made up a bad name")


def is_key(key: str) -> bool:
    """Whether `check_key` lets this name pass."""
    return not problem_with(key)


def check_prefix(prefix: str) -> None:
    """Refuse a listing prefix under which no valid name can lie.

    Raises:
        StoreError: As for `check_key`; but a prefix may be empty, and may end anywhere within a name.
    """
    if prefix:
        check_key(prefix + "x")


def problem_with(key: str) -> str:
    """Return what is wrong with a name, as the end of a sentence, or nothing."""
    if not key.isprintable():  # unpaired surrogates are not printable either, so encoding cannot fail below
        return "has control characters"
    if any(part in {"", ".", ".."} for part in key.split("/")):
        return "has an empty, '.' or '..' part"
    if "\\" in key:
        return "has a backslash"  # SeaweedFS makes it a slash
    encoded = key.encode()
    if len(encoded) > _MAX_KEY or any(len(part) > _MAX_PART for part in encoded.split(b"/")):
        return "is too long"
    return ""
