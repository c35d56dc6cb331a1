"""Names of the objects of a dataset, and references that pin their bytes.

Every object but `head` is written once under a random name `KIND/PUSH-RANDOM`. PUSH names the push that made
it: while the object `pushes/PUSH` exists that push is going on, and `gc` keeps its hands off (see gc.py).

Threading: values only.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass

from sealfs.errors import IntegrityError, ObjectNotFoundError, ObjectSizeError
from sealfs.fields import Fields
from sealfs.store.base import ObjectStore

HEAD = "head"
PUSHES = "pushes/"
PACKS = "packs/"
INDEXES = "indexes/"
KEYRINGS = "keyrings/"
SNAPSHOTS = "snapshots/"
WRITE_ONCE = (PACKS, INDEXES, KEYRINGS, SNAPSHOTS)

PUSH_ID_SIZE = 8
OBJECT_ID_SIZE = PUSH_ID_SIZE + 16
_ID_PATTERN = r"[0-9a-f]{16}-[0-9a-f]{32}"


def new_push_id() -> bytes:
    """Return a fresh random push id (8 bytes)."""
    return os.urandom(PUSH_ID_SIZE)


def new_object_id(push: bytes) -> bytes:
    """Return a fresh random object id (24 bytes) that belongs to `push`."""
    return push + os.urandom(OBJECT_ID_SIZE - PUSH_ID_SIZE)


def object_name(kind: str, object_id: bytes) -> str:
    """Return the key of an object, e.g. `packs/<16 hex>-<32 hex>`."""
    return f"{kind}{object_id[:PUSH_ID_SIZE].hex()}-{object_id[PUSH_ID_SIZE:].hex()}"


def object_id_of(name: str, kind: str) -> bytes:
    """Return the 24-byte id in an object's key.

    Raises:
        IntegrityError: It is not a key that sealfs makes.
    """
    if not re.fullmatch(re.escape(kind) + _ID_PATTERN, name):
        raise IntegrityError(f"'{name[:80]}' is not the name of a dataset's object")
    return bytes.fromhex(name[len(kind) :].replace("-", ""))


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """An object's name together with the size and SHA-256 that its bytes must have.

    Attributes:
        name: Key in the store.
        size: Bytes.
        sha256: 32 bytes.
    """

    name: str
    size: int
    sha256: bytes

    @classmethod
    def of(cls, name: str, data: bytes | bytearray | memoryview) -> ObjectRef:
        """Return the reference to `data` under `name`."""
        return cls(name, len(data), hashlib.sha256(data).digest())

    @classmethod
    def from_fields(cls, fields: Fields, kind: str) -> ObjectRef:
        """Read a reference to an object of one kind out of a JSON document."""
        name = fields.text("name", re.escape(kind) + _ID_PATTERN)
        return cls(name, fields.integer("size"), fields.hexadecimal("sha256", 32))

    def to_json(self) -> dict[str, str | int]:
        """Return the JSON form."""
        return {"name": self.name, "size": self.size, "sha256": self.sha256.hex()}

    def fetch(self, store: ObjectStore, max_size: int) -> bytes:
        """Return the object's bytes, checked against this reference.

        Raises:
            IntegrityError: The object is missing or other than it was.
        """
        if self.size > max_size:
            raise IntegrityError(f"{self.name} is {self.size} bytes long, at most {max_size} are allowed")
        try:
            data, _ = store.get(self.name, max_size=self.size)
        except ObjectNotFoundError:
            raise IntegrityError(f"{self.name} is missing from the store") from None
        except ObjectSizeError:
            raise IntegrityError(f"{self.name} has grown since the provider signed it") from None
        if len(data) != self.size or hashlib.sha256(data).digest() != self.sha256:
            raise IntegrityError(f"{self.name} is not what the provider signed")
        return data
