"""A broker that kills itself, as a power cut would, when it comes to a step: `dying.py FOLDER STEP`.

Prints its address when it is there. Nothing in the broker knows of this: what it calls is replaced from outside.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from sealfs.broker import jose, release, serve
from sealfs.broker.audit import Log
from sealfs.broker.home import open_home
from sealfs.broker.metrics import Metrics
from sealfs.broker.protocol import ATTEST_PATH, RESOURCE_PATH
from sealfs.broker.wrapping import FileWrapper


class Nothing:
    """Intel says nothing."""

    def checked(self, quote: bytes, at: object, check: object) -> Any:
        raise AssertionError("no quote is shown in this test, so nobody asks about one")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner: Any, name: str, when: Callable[..., bool] = lambda *_, **__: True) -> None:
    original = getattr(owner, name)

    def replaced(*arguments: Any, **options: Any) -> Any:
        if when(*arguments, **options):
            die()
        return original(*arguments, **options)

    setattr(owner, name, replaced)


def after(owner: Any, name: str, when: Callable[..., bool] = lambda *_, **__: True) -> None:
    original = getattr(owner, name)

    def replaced(*arguments: Any, **options: Any) -> Any:
        result = original(*arguments, **options)
        if when(*arguments, **options):
            die()
        return result

    setattr(owner, name, replaced)


def logged(event: str) -> Callable[..., bool]:
    return lambda log, transaction, at, what, fields: what == event


def answered(route: str) -> Callable[..., bool]:
    return lambda metrics, path, status, seconds: path.startswith(route)


STEPS: dict[str, Callable[[], None]] = {
    "never": lambda: None,
    # attest
    "before evidence is verified": lambda: before(release.Releases, "_verified"),
    "before the challenge is spent": lambda: before(release, "spend"),
    "when the challenge is spent but not committed": lambda: after(release, "spend"),
    "when the evidence is logged but not committed": lambda: after(Log, "append", logged("attested")),
    "when the challenge is committed": lambda: before(release.Sessions, "add"),
    "when the token is made but not sent": lambda: before(Metrics, "count", answered(ATTEST_PATH)),
    # release
    "before the decision": lambda: before(release, "decide"),
    "when it is decided but not logged": lambda: before(Log, "append", logged("released")),
    "when it is logged but not committed": lambda: after(Log, "append", logged("released")),
    "when it is committed": lambda: before(release.Releases, "_encrypted"),
    "when the key is open": lambda: before(jose, "encrypt_to"),
    "when the key is encrypted but not sent": lambda: before(Metrics, "count", answered(RESOURCE_PATH)),
}


def main() -> None:
    folder = Path(sys.argv[1])
    STEPS[sys.argv[2]]()
    with closing(open_home(folder / "home", FileWrapper(folder / "broker.key"))) as home:
        options = serve.Options(port=0)
        service = serve.Service(serve.application(home, serve.verifiers(Nothing()), options), home, options)
        service.run(lambda address: print(address, flush=True))


if __name__ == "__main__":
    main()
