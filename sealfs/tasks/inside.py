"""What runs first where a contract is carried out: proves itself to every owner's broker, and does what was agreed.

    python -m sealfs.tasks.inside --task FILE --run ID --data INPUT=FOLDER [...] --result OUTPUT=FOLDER [...]
    python -m sealfs.tasks.inside --from CIPHERTEXT RESULTS      the same, all said by files: for enclaves

Its starter is the operator's host, which is not trusted. All that matters is taken from the contract, and the
digest of that very contract is what the evidence is bound to: command, environment, what is mounted where, who
receives what. A host that tells it another contract gets no key for it. The host says only where ciphertext lies,
which is checked against the digests agreed on, and where sealed results go.

Threading: one thread, until the script runs; see `inputs` for mounts.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import sys
import tempfile
import types
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import TIMEOUT_MAX

from sealfs.attestation.sample import SampleProvider
from sealfs.contracts.approval import RUN_ID_SIZE
from sealfs.contracts.contract import Contract
from sealfs.contracts.lock import Lock, is_locked
from sealfs.contracts.provenance import Provenance
from sealfs.contracts.task import MAX_SIZE, Task
from sealfs.contracts.terms import SealedData
from sealfs.dataset.dataset import Dataset
from sealfs.dataset.trust import TrustStore
from sealfs.enclave.attach import INTEGRITY_EXIT, is_preloaded
from sealfs.enclave.attested import provider_for
from sealfs.enclave.defaults import apply_defaults
from sealfs.enclave.keysource import read_secret
from sealfs.enclave.launch import preload_and_restart
from sealfs.enclave.memory import memory_folder
from sealfs.enclave.output import OutputSealer, end_like_a_program
from sealfs.enclave.printing import print_to, say
from sealfs.enclave.shellouts import answer_shell_outs
from sealfs.errors import ContractError, LocalIOError, SealfsError, UsageError
from sealfs.keys import Identity, Recipient
from sealfs.store.local import LocalStore
from sealfs.tasks.inputs import attach_inputs, mounted_inputs
from sealfs.tasks.release import Keys, release

PROVENANCE = "provenance"  # objects beside the results' own
LOCK = "lock"
TOLD = "+told"  # folder beside the inputs with what the host says: files `task`, `run`, `script`
PRINTED = "printed.log"  # what the script printed, sealed with its results
STATE_PREFIX = "sealfs-inside-"  # of a folder for what is nobody's business, with the process's id behind it
_MAX_SCRIPT = 64 << 20
_BASE_ENVIRONMENT: Mapping[str, str] = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/", "LC_ALL": "C.UTF-8"}


@dataclass(frozen=True)
class Told:
    """What the host says.

    Attributes:
        task: The task, read once.
        run: Id of this run.
        data: Input to the folder with its ciphertext.
        results: Output to the folder for its sealed results.
        script: Where the script lies, if it is no sealed input.
        runner: Descriptor that gives a runner's secret, whose word is the evidence; None for the hardware's.
        attach: How data gets in: "preload", inside this process, or "fuse".
    """

    task: Task
    run: str
    data: Mapping[str, str]
    results: Mapping[str, str]
    script: str | None
    runner: int | None
    attach: str = "preload"


def environment_of(contract: Contract) -> dict[str, str]:
    """Return all the environment variables that a script is to see."""
    return {**_BASE_ENVIRONMENT, **contract.function.environment}


def main(arguments: Sequence[str] | None = None) -> None:
    """Carry out one run; ends the process with the script's exit code, or an error's."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        told = _parse(arguments)
        contract = told.task.contract
        environment = environment_of(contract)
        if told.attach == "preload" and not is_preloaded():
            preload_and_restart(arguments, [] if told.runner is None else [told.runner], environment)
        _replace_environment(environment, is_enclave=contract.function.executor != "native")
        apply_defaults()
        if not re.fullmatch(f"[0-9a-f]{{{2 * RUN_ID_SIZE}}}", told.run):
            raise UsageError("the host has not said which run this is", "32 hex digits")
        told.task.check_approved(datetime.now(UTC))  # brokers check, too, with clocks that owners trust
        code = _carry_out(told)
    except SealfsError as error:
        say(f"{error.message}" + (f" ({error.hint})" if error.hint else ""))
        code = error.exit_code
    except OSError as error:
        say(f"cannot go on: {error.filename or ''}: {error.strerror}")
        code = LocalIOError.exit_code
    sys.stdout.flush()
    os._exit(code)  # exit handlers have run


def _parse(arguments: Sequence[str]) -> Told:
    parser = argparse.ArgumentParser(prog="python -m sealfs.tasks.inside", description=__doc__)
    parser.add_argument(
        "--from", dest="folders", nargs=2, metavar="FOLDER", help=f"take it all from {TOLD} in the first folder"
    )
    parser.add_argument("--task", metavar="FILE", help="the task")
    parser.add_argument("--digest", metavar="HEX", help="the contract's digest, if the starter means a certain one")
    parser.add_argument("--run", metavar="ID", help="32 hex digits")
    parser.add_argument("--data", action="append", default=[], metavar="INPUT=FOLDER")
    parser.add_argument("--result", action="append", default=[], metavar="OUTPUT=FOLDER")
    parser.add_argument("--script", metavar="FILE", help="where the script lies, if it is no sealed input")
    parser.add_argument(
        "--runner-fd", type=int, metavar="N", help="a runner's signature for evidence: what it signs with"
    )
    parser.add_argument("--attach", choices=["preload", "fuse"], default="preload", help="how data gets in")
    options = parser.parse_args(arguments)
    if options.folders is not None:
        return _told_by_files(Path(options.folders[0]), Path(options.folders[1]), options.runner_fd)
    if options.task is None or options.run is None:
        parser.error("which --task, and which --run?")
    with open(options.task, "rb") as file:
        task = Task.parse(file.read(MAX_SIZE + 1))
    contract = task.contract
    if options.digest is not None and options.digest != contract.digest:
        raise ContractError(
            f"started for the contract {options.digest}, but was given {contract.digest}",
            "the operator has to explain",
        )
    data, results = (dict(_pair(text) for text in texts) for texts in (options.data, options.result))
    if set(data) != set(contract.inputs) or set(results) != set(contract.outputs):
        raise UsageError(
            "the host has not named a folder for exactly the contract's inputs and outputs",
            f"inputs: {', '.join(contract.inputs)}; outputs: {', '.join(contract.outputs)}",
        )
    return Told(task, options.run, data, results, options.script, options.runner_fd, options.attach)


def _told_by_files(ciphertext: Path, results: Path, runner: int | None) -> Told:
    with (ciphertext / TOLD / "task").open("rb") as file:
        task = Task.parse(file.read(MAX_SIZE + 1))
    with (ciphertext / TOLD / "run").open("rb") as file:
        run = file.read(2 * RUN_ID_SIZE).decode("ascii", "replace")
    return Told(
        task,
        run,
        {name: str(ciphertext / name) for name in task.contract.inputs},
        {name: str(results / name) for name in task.contract.outputs},
        str(ciphertext / TOLD / "script"),
        runner,
    )


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


def _replace_environment(environment: Mapping[str, str], *, is_enclave: bool) -> None:
    """Leave nothing of the host's; the reader's library puts its own variables back for children.

    In an enclave nothing is the host's: what the manifest says is measured, and is needed to find libraries.
    """
    for name in list(os.environ):
        if not is_enclave and name not in {"LD_PRELOAD", "SEALFS_RUNTIME"}:
            del os.environ[name]
    os.environ.update(environment)


def _carry_out(told: Told) -> int:
    contract = told.task.contract
    run_identity = Identity.generate()
    provider = provider_for(None if told.runner is None else read_secret(told.runner))
    _leave_no_input()
    released = release(contract, run_identity, told.run, provider or SampleProvider())
    say(f"every owner's broker has released its key; this run reaches {released.level}")
    with ExitStack() as stack:
        # no TemporaryDirectory: exit handlers run before the results are sealed, and its would remove it
        state = Path(tempfile.mkdtemp(prefix=f"{STATE_PREFIX}{os.getpid()}-"))
        stack.callback(shutil.rmtree, state, ignore_errors=True)
        check_inputs = _put_inputs(stack, told, released, state)
        script, name = _script(contract, told.script)
        outputs = {
            output: stack.enter_context(
                closing(_Result(stack, told, output, run_identity, state / output, released))
            )
            for output in sorted(contract.outputs)
        }
        started = datetime.now(UTC).replace(microsecond=0)
        code = _run_script(contract, script, name, [result.folder for result in outputs.values()])
        check_inputs()
        finished = datetime.now(UTC).replace(microsecond=0)
        for result in outputs.values():
            result.sealer.check_size()  # all of them, before anything leaves
        for output, result in outputs.items():
            sealed = result.seal(code)
            provenance = Provenance(
                contract=contract.digest,
                task=contract.id,
                run=told.run,
                output=output,
                result=sealed,
                signer=run_identity.signer,
                inputs={name: entry.data for name, entry in contract.inputs.items() if entry.data is not None},
                script=hashlib.sha256(script).hexdigest(),
                level=released.level,
                tee=released.tee,
                measurement="",
                started=started,
                finished=finished,
                exit_code=code,
                exhibits=released.exhibits,
            )
            result.store.put(PROVENANCE, provenance.sign(run_identity))
    return code


def _put_inputs(stack: ExitStack, told: Told, released: Keys, state: Path) -> Callable[[], None]:
    """Put the inputs at their paths; return what to call before anything leaves."""
    contract = told.task.contract
    if told.attach == "preload":  # whose library ends the process at the first damage
        attach_inputs(contract, told.data, released.keys, state)
        return lambda: None
    return stack.enter_context(mounted_inputs(contract, told.data, released.keys, state, _end_by_damage))


def _end_by_damage() -> None:
    """End as a process does that has its data in-process: at once, and nothing is sealed."""
    os._exit(INTEGRITY_EXIT)


def _leave_no_input() -> None:
    """Give the script an empty standard input: what the operator types was not agreed on."""
    empty = os.open(os.devnull, os.O_RDONLY)
    if empty != 0:  # it is, where a secret came by it
        os.dup2(empty, 0)
        os.close(empty)
    os.set_inheritable(0, True)


def _script(contract: Contract, path: str | None) -> tuple[bytes, str]:
    """Return the script's bytes, read once, and what it is called."""
    function = contract.function
    if function.code is not None:
        path = str(Path(contract.inputs[function.code].path) / function.script)
    if path is None:
        raise UsageError("the host has not said where the script lies", "--script FILE")
    with open(path, "rb") as file:
        script = file.read(_MAX_SCRIPT + 1)
    if function.sha256 not in {None, hashlib.sha256(script).hexdigest()}:
        raise ContractError(
            f"{path} is not the script agreed on", "its SHA-256 differs: the operator has to explain"
        )
    return script, path


def _run_script(contract: Contract, script: bytes, name: str, folders: Sequence[Path]) -> int:
    """Run the script as `__main__`, to the end of its threads and exit handlers; return its exit code."""
    module = types.ModuleType("__main__")
    module.__dict__["__file__"] = name
    sys.modules["__main__"] = module
    sys.argv = [name, *contract.function.arguments]
    if contract.function.code is not None:
        sys.path[0] = str(Path(name).parent)  # its modules are sealed with it
    else:
        del sys.path[0]  # what lies beside the script was not agreed on
    if contract.stdout != "host":
        print_to(folders[0] / PRINTED if contract.stdout == "sealed" else Path(os.devnull))
    answer_shell_outs()
    code = 0
    try:
        exec(compile(script, name, "exec"), module.__dict__)  # noqa: S102 - that is what was agreed
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    end_like_a_program()
    if contract.stdout == "sealed":
        for folder in folders[1:]:
            shutil.copy(folders[0] / PRINTED, folder)
    return code & 0xFF


class _Result:
    """One output: the folder that the script writes to, and what seals it.

    Args:
        stack: Undoes what is put up.
        told: From the host.
        output: Which.
        run_identity: Signs.
        state: A private folder for this output.
        released: Says which level results are stamped with.
    """

    def __init__(
        self, stack: ExitStack, told: Told, output: str, run_identity: Identity, state: Path, released: Keys
    ) -> None:
        contract = told.task.contract
        terms = contract.outputs[output]
        state.mkdir(mode=0o700)
        self._state = state
        self._run_identity = run_identity
        self.store = LocalStore(Path(told.results[output]))
        alone = (
            not self.store.has_conditional_writes()
        )  # Gramine has neither links nor flock; the folder is one run's
        self._recipients = [_recipient(contract, name) for name in terms.recipients]
        if is_locked(terms):
            identity = Identity.generate()
            self._recipients = [identity.recipient]
            lock = Lock.make(contract, told.run, output, identity).sign(run_identity)
            self.store.put(LOCK, lock, if_absent=not alone)
        if contract.function.executor == "native":
            self.folder = stack.enter_context(memory_folder(Path(terms.path))).content
        else:  # an enclave's root is its memory
            self.folder = Path(terms.path)
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.sealer = OutputSealer(
            self.folder,
            self.store,
            self._recipients,
            state,
            interval=TIMEOUT_MAX / 2,  # nothing leaves before the end, when nobody writes and all can be weighed
            single_writer=alone,
            identity=run_identity,
            max_size=terms.max_size,
            level=str(released.level),
        )
        self.sealer.start()

    def seal(self, code: int) -> SealedData:
        """Seal what was written, once; return the snapshot."""
        self.sealer.finish(f"end of the run, exit code {code}")
        dataset = Dataset.open(self.store, TrustStore(self._state / "trust"), signer=self._run_identity.signer)
        snapshot = dataset.snapshot
        return SealedData(snapshot.dataset.hex(), snapshot.version, dataset.ref.sha256.hex(), self.store.uri)

    def close(self) -> None:
        """Seal nothing more."""
        self.sealer.abandon()
        self.store.close()


def _recipient(contract: Contract, name: str) -> Recipient:
    recipient = contract.parties[name].recipient
    assert recipient is not None  # noqa: S101 - contracts are checked for that
    return recipient


if __name__ == "__main__":
    main()
