"""A contract as its creator writes it: a TOML file with the names of key files and addresses of datasets.

What a contract needs beyond that is looked up once, here: keys from .pub files, the exact version and digest of
each dataset, the digest of the script. docs/contracts.md has an example with every member.

Threading: stateless.
"""

from __future__ import annotations

import hashlib
import os
import tomllib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from sealfs.attestation.canonical import Members
from sealfs.attestation.policy import Policy
from sealfs.contracts import terms
from sealfs.contracts.contract import ID_SIZE, MAX_OUTPUT_SIZE, MAX_RUNS, NETWORKS, STDOUTS, Contract
from sealfs.contracts.terms import Function, Input, Output, Party, SealedData
from sealfs.errors import DocumentError, LocalIOError, UsageError
from sealfs.keys import RECIPIENT_PREFIX, SIGNER_PREFIX, Recipient, Signer

_MAX_SIZE: Final = 256 << 10
_MAX_SCRIPT: Final = 64 << 20
_MAX_DAYS: Final = 3660

FindData = Callable[[str], SealedData]
"""Looks a dataset up: from an address, with a version or without, to what it is now."""


def new_id() -> str:
    """Return a new contract's id."""
    return os.urandom(ID_SIZE).hex()


def read_draft(path: Path, find_data: FindData, now: datetime, task: str | None = None) -> Contract:
    """Make a contract of a draft.

    Args:
        path: The TOML file; names of files in it are relative to its folder.
        find_data: Looks up the datasets that it names.
        now: When the contract begins to hold, unless the draft says when.
        task: The contract's id; None for a new one.

    Raises:
        DocumentError: It makes no sense.
        LocalIOError: A file is not there.
    """
    try:
        document = tomllib.loads(_read(path, _MAX_SIZE).decode())
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"{path} is no TOML: {error}", "docs/contracts.md has an example") from None
    what = "the draft"
    members = Members(document, what).only(
        *("title", "creator", "operator", "runs", "not_before", "expires", "days", "network", "stdout"),
        *("parties", "function", "inputs", "outputs", "policy"),
    )
    begin = _time(document, "not_before", now)
    if ("expires" in members) == ("days" in members):
        raise DocumentError("the draft has to say how long it holds", "either 'expires' or 'days'")
    end = _time(document, "expires", now) if "expires" in members else None
    return Contract(
        id=task or new_id(),
        title=members.text("title", terms.WORDS),
        creator=members.text("creator", terms.NAME),
        operator=members.text("operator", terms.NAME),
        parties={name: _party(entry, path.parent) for name, entry in _named(members, "parties")},
        function=_function(members.object("function"), path.parent),
        inputs={name: _input(entry, find_data) for name, entry in _named(members, "inputs")},
        outputs={name: _output(entry) for name, entry in _named(members, "outputs")},
        policy=_policy(members, document, path.parent),
        network=members.text("network", "|".join(NETWORKS)) if "network" in members else "services",
        stdout=members.text("stdout", "|".join(STDOUTS)) if "stdout" in members else "none",
        not_before=begin,
        expires=end or begin + timedelta(days=members.integer("days", 1, _MAX_DAYS)),
        runs=members.integer("runs", 1, MAX_RUNS) if "runs" in members else 1,
    )


def assigned(contract: Contract, name: str, data: SealedData) -> Contract:
    """Return a contract with the data of an input filled in: a new digest, so nobody's approval.

    Raises:
        UsageError: There is no such input.
    """
    if name not in contract.inputs:
        raise UsageError(f"there is no input '{name}'", f"there are: {', '.join(contract.inputs)}")
    return replace(contract, inputs={**contract.inputs, name: replace(contract.inputs[name], data=data)})


def _read(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise LocalIOError(f"cannot read {path}: {error.strerror}", "check its name") from None
    if len(data) > most:
        raise LocalIOError(f"{path} has more than {most} bytes", "is it the right file?")
    return data


def _time(document: dict[str, Any], name: str, otherwise: datetime) -> datetime:
    value = document.get(name, otherwise)
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise DocumentError(f"the draft's '{name}' is no time with a zone", f"write {name} = 2026-11-30T12:00:00Z")
    return value.astimezone(UTC).replace(microsecond=0)


def _named(members: Members, name: str) -> list[tuple[str, Members]]:
    entries = members.object(name)
    return [(entry, entries.object(entry)) for entry in entries]


def _optional(members: Members, name: str, pattern: str) -> str | None:
    return members.text(name, pattern) if name in members else None


def _party(members: Members, folder: Path) -> Party:
    members.only("keys", "broker")
    file = folder / members.text("keys", terms.TEXT)
    lines = _read(file, _MAX_SIZE).decode("ascii", "replace").splitlines()
    signer = next((line for line in lines if line.startswith(SIGNER_PREFIX)), None)
    recipient = next((line for line in lines if line.startswith(RECIPIENT_PREFIX)), None)
    if signer is None:
        raise DocumentError(f"{file} has no signer string", "name the .pub file of their identity")
    return Party(
        Signer.parse(signer),
        Recipient.parse(recipient) if recipient else None,
        _optional(members, "broker", terms.URL),
    )


def _function(members: Members, folder: Path) -> Function:
    members.only("name", "owner", "public", "executor", "script", "code", "arguments", "environment")
    script, code = members.text("script", terms.TEXT), _optional(members, "code", terms.NAME)
    environment = members.object("environment") if "environment" in members else None
    return Function(
        name=members.text("name", terms.WORDS),
        owner=members.text("owner", terms.NAME),
        public=members.boolean("public") if "public" in members else False,
        executor=members.text("executor", r"[a-z0-9_-]{1,40}") if "executor" in members else "native",
        script=script,
        code=code,
        sha256=None if code else hashlib.sha256(_read(folder / script, _MAX_SCRIPT)).hexdigest(),
        arguments=tuple(members.texts("arguments", terms.MAX_ARGUMENTS)) if "arguments" in members else (),
        environment={name: environment.text(name) for name in environment} if environment else {},
    )


def _input(members: Members, find_data: FindData) -> Input:
    members.only("owners", "path", "prefix", "data")
    return Input(
        tuple(members.texts("owners", terms.MAX_PARTIES, terms.NAME)),
        members.text("path", terms.TEXT),
        members.text("prefix", terms.PREFIX) if "prefix" in members else "",
        find_data(members.text("data", terms.TEXT)) if "data" in members else None,
    )


def _output(members: Members) -> Output:
    members.only("recipients", "path", "max_size", "votes", "voters")
    return Output(
        tuple(members.texts("recipients", terms.MAX_PARTIES, terms.NAME)),
        members.text("path", terms.TEXT),
        members.integer("max_size", 1, MAX_OUTPUT_SIZE),
        members.integer("votes", 0, terms.MAX_PARTIES) if "votes" in members else 0,
        tuple(members.texts("voters", terms.MAX_PARTIES, terms.NAME)) if "voters" in members else (),
    )


def _policy(members: Members, document: dict[str, Any], folder: Path) -> Policy:
    """A table of its own, or the name of a policy file."""
    if isinstance(document.get("policy"), str):
        return Policy.parse(_read(folder / members.text("policy", terms.TEXT), _MAX_SIZE))
    return Policy.from_json(document.get("policy"))
