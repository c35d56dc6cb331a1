"""What makes sense in a contract beyond the shape of its members: who and what it refers to, and where things lie.

Whatever passes here can be signed and run; nothing is looked up anywhere.

Threading: stateless.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence

from sealfs.contracts.terms import NAME, Terms
from sealfs.errors import DocumentError

_BROKER = re.compile(r"https://[A-Za-z0-9._:\[\]-]{1,255}(?:/[A-Za-z0-9._~/-]*)?#sha256:[0-9a-f]{64}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_PRINTABLE_PATH = re.compile(r"[^\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]{1,1024}")
_CODE_BY_NAME = re.compile(
    r"LD_.*|PYTHON(?!HASHSEED$|UNBUFFERED$|WARNINGS$).*|SEALFS_.*|GLIBC_TUNABLES|GCONV_PATH"
    r"|BASH_ENV|ENV|OPENSSL_(?:CONF|ENGINES|MODULES)"
)
_CODE_BY_PLACE = {"PATH", "HOME"}  # where programs are, and Python's own modules of a user
_SYSTEM = ("/proc", "/sys", "/dev", "/etc", "/bin", "/sbin", "/usr", "/lib", "/lib64", "/boot")


def check(contract: Terms) -> None:
    """Refuse a contract that makes no sense.

    Raises:
        DocumentError: Says what.
    """
    _check_names(contract)
    _check_keys(contract)
    _check_function(contract)
    _check_paths(contract)
    _check_environment(contract)
    _check_outputs(contract)
    if not contract.inputs or not contract.outputs:
        raise DocumentError("a contract has at least one input and one output", "what is it for otherwise?")
    for at in (contract.not_before, contract.expires):
        if at.utcoffset() is None or at.microsecond:
            raise DocumentError("times are in whole seconds, with a time zone")
    if contract.not_before >= contract.expires:
        raise DocumentError("the contract ends before it begins", "check 'not_before' and 'expires'")


def _check_names(contract: Terms) -> None:
    for names in (contract.parties, contract.inputs, contract.outputs):
        for name in names:
            if not re.fullmatch(NAME, name):
                raise DocumentError(f"{name[:80]!r} is no name", "use lower-case letters, digits, '-', '_' and '.'")
    for what, members in _references(contract):
        if len(set(members)) != len(members):
            raise DocumentError(f"{what} names somebody twice")
        for name in members:
            if name not in contract.parties:
                raise DocumentError(f"{what} names '{name}', who is no party", "list every party with its keys")


def _references(contract: Terms) -> Iterator[tuple[str, Sequence[str]]]:
    yield "the creator", [contract.creator]
    yield "the operator", [contract.operator]
    yield "the function's owner", [contract.function.owner]
    for name, entry in contract.inputs.items():
        if not entry.owners:
            raise DocumentError(f"input '{name}' belongs to nobody", "name its owners")
        yield f"input '{name}'", entry.owners
    for name, output in contract.outputs.items():
        yield f"output '{name}'", output.recipients
        yield f"the vote on output '{name}'", output.voters


def _check_keys(contract: Terms) -> None:
    """Two parties with one key would be one person with two voices."""
    parties = list(contract.parties.values())
    recipients = [party.recipient for party in parties if party.recipient is not None]
    if len({party.signer for party in parties}) != len(parties) or len(set(recipients)) != len(recipients):
        raise DocumentError(
            "two parties have the same key", "each party signs with a key of its own: sealfs keygen"
        )
    for name, party in contract.parties.items():
        if party.broker is not None and not _BROKER.fullmatch(party.broker):
            raise DocumentError(
                f"party '{name}' has a broker without its identity",
                "write the whole address as the broker says it: https://HOST:PORT#sha256:...",
            )


def _check_function(contract: Terms) -> None:
    function = contract.function
    if (function.code is None) == (function.sha256 is None):
        raise DocumentError(
            "the script is either in a sealed input or has a digest", "say one of 'code' and 'sha256'"
        )
    if not function.script.endswith(".py") or not _PRINTABLE_PATH.fullmatch(function.script):
        raise DocumentError("the script is the path of a Python file", "such as train.py")
    if function.code is not None:
        if function.code not in contract.inputs:
            raise DocumentError(f"the code's input '{function.code}' is none of the inputs")
        if function.owner not in contract.inputs[function.code].owners:
            raise DocumentError(f"the function belongs to '{function.owner}', its code's input does not")
        if function.script != os.path.normpath(function.script) or function.script.startswith(("/", "..")):
            raise DocumentError("the script is a path below its input's top, without '..'")


def _check_environment(contract: Terms) -> None:
    function = contract.function
    for name, value in function.environment.items():
        if not _VARIABLE.fullmatch(name):
            raise DocumentError(f"{name[:80]!r} is no name of an environment variable")
        if _CODE_BY_NAME.fullmatch(name) or (name == "PYTHONWARNINGS" and "." in value):  # imports what has the dot
            raise DocumentError(
                f"the environment variable {name} can load code that nobody agreed on",
                "leave it out; the script can do what it needs by itself",
            )
    inputs, outputs = contract.inputs.values(), contract.outputs.values()
    folders = [*(entry.path for entry in inputs), *(entry.path for entry in outputs)]
    for name in _CODE_BY_PLACE & function.environment.keys():
        for place in function.environment[name].split(":"):
            if not place.startswith("/") or any(_within(os.path.normpath(place), folder) for folder in folders):
                raise DocumentError(
                    f"the environment variable {name} leads to data, which could be code there", "leave it out"
                )


def _check_paths(contract: Terms) -> None:
    """Folders apart from one another; only inputs may share one, and then they are one folder."""
    inputs = {entry.path for entry in contract.inputs.values()}
    outputs = [entry.path for entry in contract.outputs.values()]
    if len(set(outputs)) != len(outputs):
        raise DocumentError("two outputs have the same path", "give each a path of its own")
    for path in (*inputs, *outputs):
        if not _PRINTABLE_PATH.fullmatch(path) or path != os.path.normpath(path) or not path.startswith("/"):
            raise DocumentError(f"{path[:80]!r} is no absolute path in its shortest form")
        if path.startswith("//") or path == "/" or any(_within(path, system) for system in _SYSTEM):
            raise DocumentError(f"{path} is the system's", "choose a folder such as /data or /out")
    paths = [*inputs, *outputs]
    for number, path in enumerate(paths):
        for other in paths[number + 1 :]:
            if _within(path, other) or _within(other, path):
                raise DocumentError(f"{path} and {other} lie in one another", "give each a path of its own")
    code = contract.function.code
    for name, entry in contract.inputs.items():
        if code is not None and name != code and entry.path == contract.inputs[code].path:
            raise DocumentError(
                f"input '{name}' shares the code's folder", "data could take the place of code there"
            )
        if name == code and entry.prefix:
            raise DocumentError("the code's input has a prefix, which would rename its modules", "leave it out")


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + "/")


def _check_outputs(contract: Terms) -> None:
    for name, output in contract.outputs.items():
        if not output.recipients:
            raise DocumentError(f"nobody could open output '{name}'", "name its recipients")
        if bool(output.votes) != bool(output.voters) or output.votes > len(output.voters):
            raise DocumentError(
                f"output '{name}' is released by {output.votes} of {len(output.voters)} votes",
                "say how many of which voters, or neither",
            )
        for party in (*output.recipients, *output.voters):
            if contract.parties[party].recipient is None:
                raise DocumentError(
                    f"output '{name}' needs the recipient key of '{party}'", "give both lines of their .pub file"
                )
