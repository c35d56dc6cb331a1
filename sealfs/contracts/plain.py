"""A contract in plain words: what somebody reads before they sign.

Everything that a signature covers is in these lines, in full. Text that another party wrote is shown with quotation
marks, and with everything escaped that could move a terminal's cursor or pretend to be another line.

Threading: stateless.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.filesize import decimal

from sealfs.attestation.levels import Level
from sealfs.contracts.contract import Contract, shown_time
from sealfs.contracts.terms import Output
from sealfs.terminal import escaped

_NETWORK = {
    "services": "it reaches the parties' brokers and the stores, nothing else",
    "open": "IT REACHES WHATEVER ITS MACHINE LETS THROUGH: it could send data anywhere",
}
_STDOUT = {
    "none": "what it prints is thrown away",
    "sealed": "what it prints is sealed with its results",
    "host": "WHAT IT PRINTS IS SHOWN TO THE OPERATOR in plain text",
}


@dataclass(frozen=True)
class Section:
    """A heading and the sentences under it."""

    heading: str
    lines: tuple[str, ...]


def quoted(text: str) -> str:
    """Return words of somebody else, so that they can't be taken for ours."""
    return '"' + "".join(c if c.isprintable() and c not in '"\\' else _escaped(c) for c in text) + '"'


def _escaped(character: str) -> str:
    return "\\" + character if character.isprintable() else character.encode("unicode_escape").decode()


def _word(text: str) -> str:
    """Return a word as a shell would be given it: two that differ never look the same."""
    if text.isprintable():
        return shlex.quote(text)
    return "$'" + "".join(c if c.isprintable() and c not in "'\\" else _escaped(c) for c in text) + "'"


def fingerprint(key: object) -> str:
    """Return 16 hex digits that tell a public key apart: to be compared over the telephone."""
    return hashlib.sha256(str(key).encode()).hexdigest()[:16]


def describe(contract: Contract, me: str | None = None) -> list[Section]:
    """Say all that a contract says.

    Args:
        contract: Which one.
        me: The reader's party, who is addressed as such.
    """
    return [
        Section("What", tuple(_what(contract))),
        Section("Who", tuple(_who(contract, me))),
        Section("What runs", tuple(_function(contract))),
        Section("What goes in", tuple(_inputs(contract))),
        Section("What comes out", tuple(_outputs(contract))),
        Section("How it is protected", tuple(_protection(contract))),
        Section("Who learns what", tuple(_learns(contract, me))),
    ]


def _what(contract: Contract) -> Iterator[str]:
    yield f"{quoted(contract.title)}, written by {contract.creator}; task {contract.id}"
    yield f"signed is the digest {contract.digest}"
    begin, end = shown_time(contract.not_before), shown_time(contract.expires)
    yield f"it may be run {times(contract.runs)}, from {begin} to {end}"
    yield f"nothing happens before these have signed: {', '.join(contract.approvers)}"


def roles(contract: Contract, name: str) -> list[str]:
    """Return what a party is in a contract."""
    found = ["writes the contract"] if name == contract.creator else []
    found += [f"owns input {entry}" for entry, data in contract.inputs.items() if name in data.owners]
    found += ["owns the code"] if name == contract.function.owner else []
    found += [f"receives output {entry}" for entry, output in contract.outputs.items() if name in output.recipients]
    found += [f"votes on output {entry}" for entry, output in contract.outputs.items() if name in output.voters]
    found += ["operates the machines"] if name == contract.operator else []
    return found


def _who(contract: Contract, me: str | None) -> Iterator[str]:
    for name, party in contract.parties.items():
        you = " (you)" if name == me else ""
        yield f"{name}{you}: {', '.join(roles(contract, name)) or 'has no part in it'}"
        yield f"  signs with {party.signer} (fingerprint {fingerprint(party.signer)})"
        if party.recipient is not None:
            yield f"  receives with key {party.recipient.fingerprint}"
        if party.broker is not None:
            yield f"  keys come from {party.broker}"
    yield "check with each party, by a way you trust, that the fingerprint is theirs: a contract proves no name"


def _function(contract: Contract) -> Iterator[str]:
    function = contract.function
    seen = "anybody may see it" if function.public else f"it belongs to {function.owner}, who has to agree"
    yield f"{quoted(function.name)}: {seen}"
    if function.code is not None:
        yield f"script {quoted(function.script)} in the sealed input {function.code}, fixed by that input's digest"
        others = [name for name in contract.parties if name not in contract.inputs[function.code].owners]
        yield f"THE CODE IS SEALED: {', '.join(others)} can't read what will be done with the data"
    else:
        yield f"script {quoted(function.script)} with SHA-256 {function.sha256}"
        yield "  read that very file before you sign: sha256sum shows whether it is the one"
    words = " ".join(map(_word, function.arguments))
    yield f"called with: {words}" if words else "called without arguments"
    environment = [f"{name}={_word(value)}" for name, value in sorted(function.environment.items())]
    yield f"environment: {', '.join(environment) or 'nothing but what Python itself needs'}"
    yield f"runs in {function.executor}; {_STDOUT[contract.stdout]}"
    enforced = "" if contract.policy.level == Level.L5 else " (agreed, but below L5 nothing enforces it)"
    yield f"{_NETWORK[contract.network]}{enforced if contract.network == 'services' else ''}"


def _inputs(contract: Contract) -> Iterator[str]:
    paths = [entry.path for entry in contract.inputs.values()]
    for name, entry in contract.inputs.items():
        owners = " and ".join(entry.owners)
        shared = " together with others" if paths.count(entry.path) > 1 else ""
        prefix = f", each name with {entry.prefix} before it" if entry.prefix else ""
        yield f"{name}, of {owners}: seen at {quoted(entry.path)}{shared}{prefix}"
        if entry.data is None:
            yield "  WHICH DATA is not said yet; nobody can sign before"
        else:
            yield f"  dataset {entry.data.dataset} version {entry.data.version}, from {entry.data.address}"
            yield f"  snapshot SHA-256 {entry.data.snapshot}: exactly this state, no newer and no older one"
        if len(entry.owners) > 1:
            yield f"  its key comes in {len(entry.owners)} shares: each owner's broker has to release its own"


def _outputs(contract: Contract) -> Iterator[str]:
    for name, output in contract.outputs.items():
        yield f"{name}: what the script writes to {quoted(output.path)}, {decimal(output.max_size)} at most"
        yield f"  only {' and '.join(output.recipients)} can open it, {_release(output)}"


def _release(output: Output) -> str:
    if not output.votes:
        return "at once"
    return f"once {output.votes} of {len(output.voters)} have voted for it: {', '.join(output.voters)}"


def _protection(contract: Contract) -> Iterator[str]:
    policy = contract.policy
    yield f"level {policy.level}: {policy.level.meaning}"
    if policy.level < Level.L4:
        yield "THE OPERATOR CAN READ DATA AND RESULTS: at this level no hardware keeps them apart"
    for kind, values in sorted(policy.measurements.items()):
        yield f"measurement ({kind}): {' or '.join(sorted(values))}"
    for rule in sorted(policy.signers):
        yield f"or any SGX enclave signed by {rule.signer}, product {rule.product}, SVN {rule.minimum_svn} or more"
    if policy.config_ids:
        yield f"launch configuration: {' or '.join(sorted(policy.config_ids))}"
    if policy.level >= Level.L4:
        yield f"platform: {', '.join(sorted(policy.tcb_statuses))}"
        yield f"known weaknesses that are accepted: {', '.join(sorted(policy.advisories)) or 'none'}"
    if policy.minimum_evaluation_number:
        yield f"TCB evaluation data number {policy.minimum_evaluation_number} or later"
    if policy.minimum_tcb:
        yield f"least SVN: {', '.join(f'{part} {svn}' for part, svn in sorted(policy.minimum_tcb.items()))}"
    if policy.pcrs:
        yield f"PCRs {policy.pcrs}"
    if policy.development:
        yield "FOR DEVELOPMENT: made-up data only"
    yield "each dataset's own policy holds besides; the strictest counts"


def _learns(contract: Contract, me: str | None) -> Iterator[str]:
    exposed = contract.policy.level < Level.L4
    for name in contract.parties:
        you = " (you)" if name == me else ""
        yield f"{name}{you}"
        yield f"  learns: {'; '.join(_will(contract, name))}"
        yield f"  does not learn: {'; '.join(_will_not(contract, name, exposed)) or 'there is nothing it does not'}"
    yield "a result can tell something of the data that it was made from: who receives it learns that much"
    yield "a key that was released for a run can't be called back; withdrawing stops the next run"


def _will(contract: Contract, name: str) -> Iterator[str]:
    yield "this contract, who signed it and when"
    for entry, output in contract.outputs.items():
        if name in output.recipients:
            yield f"all of output {entry}" + ("" if not output.votes else ", after the vote")
    function = contract.function
    if function.code is not None and name in contract.inputs[function.code].owners:
        yield "the code, which is its own"
    if name == contract.operator:
        yield "sizes of ciphertext, which parts are read when, how long it runs, the exit code"
        if contract.stdout == "host":
            yield "everything that the script prints"
        if contract.policy.level < Level.L4:
            yield "as much of the data and the results as it cares to look at, at this level"
    owned = [entry for entry, data in contract.inputs.items() if name in data.owners]
    if owned:
        yield f"when a run used {', '.join(owned)}: its broker logs it"


def _will_not(contract: Contract, name: str, exposed: bool) -> Iterator[str]:
    if name == contract.operator and exposed:
        return
    for entry, data in contract.inputs.items():
        if name not in data.owners:
            yield f"input {entry}" + (" (the code)" if entry == contract.function.code else "")
    for entry, output in contract.outputs.items():
        if name not in output.recipients:
            yield f"output {entry}"


def changes(old: Contract, new: Contract) -> list[str]:
    """Say what differs between two contracts, a line each; nothing if they are the same."""
    if old.digest == new.digest:
        return []
    before, after = dict(_leaves(old.to_json())), dict(_leaves(new.to_json()))
    lines = []
    for name in sorted({*before, *after}):
        if before.get(name) == after.get(name):
            continue
        if name not in before:
            lines.append(f"{name}: new: {after[name]}")
        elif name not in after:
            lines.append(f"{name}: gone; it was {before[name]}")
        else:
            lines.append(f"{name}: was {before[name]}, is now {after[name]}")
    return lines


def _leaves(value: Any, at: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for name, member in value.items():
            yield from _leaves(member, f"{at} › {escaped(name)}" if at else escaped(name))
    elif isinstance(value, list):
        yield at, f"[{', '.join(_shown(member) for member in value)}]"
    else:
        yield at, _shown(value)


def _shown(value: Any) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return "yes" if value else "no"
        case str():
            return quoted(value)
        case Mapping():
            return "{" + ", ".join(f"{name}: {_shown(member)}" for name, member in value.items()) + "}"
    return str(value)


def times(count: int) -> str:
    """Return a number of times in words."""
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def text(sections: Iterable[Section]) -> str:
    """Return sections as text."""
    return "\n\n".join(
        "\n".join([section.heading, *(f"  {line}" for line in section.lines)]) for section in sections
    )
