"""`sealfs task sync | run | results | vote`: what deals with brokers, machines and results."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import click

from sealfs.attestation.collateral import CollateralFolder
from sealfs.attestation.revocation import RevocationFolder
from sealfs.attestation.verify import Verifier
from sealfs.broker.address import BrokerAddress
from sealfs.broker.exchange import bring, exchange
from sealfs.broker.owner import BrokerMember
from sealfs.cli.common import Bars, SignerParameter, identity_option, json_option, note, open_identity, print_json
from sealfs.cli.run_cmd import runner_secret
from sealfs.cli.task_common import TASK, now, standing
from sealfs.contracts import plain
from sealfs.contracts.files import change_task, load_task
from sealfs.contracts.lock import MAX_SIZE as MAX_LOCK
from sealfs.contracts.lock import Lock, is_locked
from sealfs.contracts.provenance import Provenance
from sealfs.contracts.task import Task
from sealfs.contracts.vouching import vouch
from sealfs.errors import ContractError, KeyAccessError, SealfsError, UsageError
from sealfs.keys import Identity, Signer
from sealfs.opening import open_view
from sealfs.pull import Pull
from sealfs.store.address import open_store
from sealfs.tasks.inside import LOCK
from sealfs.tasks.outside import TaskRun, get_beside, load_provenance, open_result
from sealfs.terminal import escaped
from sealfs.xdg import cache_directory


def sync(path: Path, identity: Identity) -> Task:
    """Exchange statements with every party's broker; one's own gets the contract first."""
    task = load_task(path)
    own = task.contract.party_of(identity.signer)
    for name, party in task.contract.parties.items():
        if party.broker is None:
            continue
        address = BrokerAddress.parse(party.broker)
        try:
            if name == own:
                bring(BrokerMember(address, identity), task)
            task = exchange(address, task)
        except SealfsError as error:  # it may be hostile: what one answers keeps nobody from the others
            note(f"{name}: {error.message}")
    return change_task(path, lambda known: known.merged(task))


@click.command("sync")
@TASK
@identity_option
@json_option
def sync_command(path: Path, identity_path: Path | None, as_json: bool) -> None:
    """Exchange what is signed with every party's broker, your own first: it learns of the contract by this.

    What a broker answers is verified like any other copy. A broker that does not answer is left out, and named.
    """
    task = sync(path, open_identity(identity_path))
    if as_json:
        print_json({"digest": task.contract.digest, "state": str(task.state(now()))})
    else:
        click.echo(f"{task.state(now())}: {standing(task, now())}")


@click.command("run")
@TASK
@click.option("--results", required=True, metavar="URI", help="Below which address the sealed results go.")
@click.option("--script", type=click.Path(path_type=Path), help="Where the script lies, if it is no sealed input.")
@click.option("--at", "places", multiple=True, metavar="INPUT=URI",
              help="Where an input lies, if it is not where the contract says. Repeatable.")  # fmt: skip
@click.option("--enclave", type=click.Path(path_type=Path), metavar="DIR",
              help="What 'sealfs measure --contract' filled, for executors with an enclave.")  # fmt: skip
@click.option("--runner", type=click.Path(path_type=Path), metavar="FILE",
              help="Identity of an enrolled runner: its word for what is in DIR is the evidence (L2).")  # fmt: skip
@click.option("--attach", type=click.Choice(["preload", "fuse"]), default="preload", show_default=True,
              help="How data gets in, natively: inside the process, or by FUSE mounts.")  # fmt: skip
@click.option("--offline", is_flag=True, help="Do not exchange statements with brokers before and after.")
@identity_option
@json_option
def run_command(
    path: Path,
    results: str,
    script: Path | None,
    places: tuple[str, ...],
    enclave: Path | None,
    runner: Path | None,
    attach: str,
    offline: bool,
    identity_path: Path | None,
    as_json: bool,
) -> int:
    """Run what is agreed, as the contract's operator: evidence, keys, data, script, sealed results, report.

    Nothing that you say here changes what runs: command, environment, data and recipients are the contract's, and
    the brokers release keys to nothing else. The exit code is the script's.

    With --attach fuse also programs that do not call libc read the data, and so does everybody on the machine who
    may: it is for guests that are protected as a whole (L4), and for rehearsals.

    With --runner an enrolled runner signs for what was measured (sealfs measure --contract --keys runner), natively
    or under gramine-direct. Nothing else vouches for it: that is a rehearsal, which brokers know as L2.
    """
    identity = open_identity(identity_path)
    if not offline:
        sync(path, identity)
    contract = load_task(path).contract
    level = contract.policy.level
    click.echo(click.style(f"sealfs: {level}: {level.meaning}", fg="yellow", bold=True), err=True)
    elsewhere = dict(_named(places, contract.inputs))
    enclave = enclave and enclave.absolute()
    word = runner_secret(runner, enclave) if runner is not None else None
    report = TaskRun(path, identity, results, script, elsewhere, enclave, note, word, attach).run()
    if not offline:
        sync(path, identity)
    if as_json:
        print_json(
            {
                "run": report.run,
                "exit_code": report.code,
                "results": {output: at.address for output, at in report.results.items()},
            }
        )
    else:
        click.echo(f"run {report.run}: {'finished' if report.results else 'failed'} (exit code {report.code})")
        for output, at in report.results.items():
            click.echo(f"  {output}: {at.address}")
    return report.code


def _named(places: Iterable[str], known: Iterable[str]) -> Iterable[tuple[str, str]]:
    names = set(known)
    for place in places:
        name, equals, uri = place.partition("=")
        if not equals or name not in names:
            raise UsageError(f"'{place}' is not INPUT=URI", f"the inputs are {', '.join(sorted(names))}")
        yield name, uri


@click.command("results")
@TASK
@click.option("--verify", is_flag=True, help="Check where each result comes from, evidence included.")
@click.option("--pull", "target", type=click.Path(path_type=Path), metavar="DIR",
              help="Open the results that are for you, each into a folder of DIR.")  # fmt: skip
@click.option("--run", "only_run", metavar="ID", help="Only that run's (its first digits will do).")
@click.option("--accept-runner", "runners", multiple=True, type=SignerParameter(),
              help="With --verify: a runner whose signature you believe (L2).")  # fmt: skip
@click.option("--collateral", type=click.Path(path_type=Path), metavar="DIR",
              help="With --verify: Intel's collateral and AMD's revocation lists "
              "[default: $XDG_CACHE_HOME/sealfs/collateral].")  # fmt: skip
@click.option(
    "--pccs", metavar="URL", help="With --verify: a caching service to fetch it from, if it is not there."
)
@identity_option
@json_option
def results_command(
    path: Path,
    verify: bool,
    target: Path | None,
    only_run: str | None,
    runners: tuple[Signer, ...],
    collateral: Path | None,
    pccs: str | None,
    identity_path: Path | None,
    as_json: bool,
) -> None:
    """List the results of TASK's runs; with --verify say what vouches for them, with --pull open them.

    Each result has a signed provenance (in-toto, SLSA): the contract, the inputs' digests, the script, the level,
    and the evidence that the owners' brokers were shown. A result that does not fit its contract is refused.
    """
    task = load_task(path)
    said = collateral or cache_directory() / "collateral"
    verifier = Verifier(
        runners=runners,
        collateral=CollateralFolder(said, pccs),
        amd_revocations=RevocationFolder(said),
        allow_sample=True,
    )
    found = [(run, output) for run in task.runs.values() for output in _outputs_of(task, run.id)]
    found = [(run, output) for run, output in found if only_run is None or run.id.startswith(only_run)]
    described = []
    for run, output in found:
        at, provenance = load_provenance(task, run.id, output)
        entry: dict[str, object] = {
            "run": run.id,
            "output": output,
            "address": at.address,
            "level": str(provenance.level),
            "result": provenance.result.snapshot,
        }
        if verify:
            vouched = vouch(provenance, task.contract, verifier)
            entry |= {"vouched_for": vouched.is_vouched, "why": list(vouched.findings)}
        if target is not None:
            entry["files"] = str(_pull(task, run.id, output, open_identity(identity_path), target))
        described.append(entry)
    if as_json:
        print_json(described)
        return
    for entry in described:
        level = f"{entry['level']}{'' if verify else ', as it says of itself (--verify checks)'}"
        click.echo(f"run {str(entry['run'])[:8]}  {entry['output']}  {level}  {entry['address']}")
        for line in entry.get("why", []):  # type: ignore[attr-defined]
            click.echo(f"  {escaped(line)}")
        if "files" in entry:
            click.echo(f"  opened to {entry['files']}")
    if not described:
        click.echo("there are no results yet")


def _outputs_of(task: Task, run: str) -> list[str]:
    return sorted({output for said in task.runs[run].statements.values() for output in said.results})


def _lock_of(task: Task, run: str, output: str, provenance: Provenance, address: str) -> Lock:
    with closing(open_store(address)) as store:
        data = get_beside(store, LOCK, MAX_LOCK)
    if data is None:
        raise ContractError(f"the lock of '{output}' is not at {address}", "ask the operator for it")
    return Lock.parse(data, task.contract, run, output, provenance.signer)


def _pull(task: Task, run: str, output: str, identity: Identity, target: Path) -> Path:
    at, provenance = load_provenance(task, run, output)
    party = task.contract.party_of(identity.signer)
    terms = task.contract.outputs[output]
    if party not in terms.recipients:
        raise KeyAccessError(
            f"the results '{output}' are for {', '.join(terms.recipients)} only",
            "name your identity with --identity",
        )
    if is_locked(terms):
        votes = {name: said.shares for name, said in task.votes(run, output).items()}
        identity = _lock_of(task, run, output, provenance, at.address).open(party, identity, votes)
    folder = target / run[:8] / output
    with closing(open_store(at.address)) as store, tempfile.TemporaryDirectory() as pins:
        dataset = open_result(at, provenance, store, Path(pins))
        view, _ = open_view(dataset, dataset.keys(identity))
        with closing(view), Bars.shown() as bars:
            Pull(view, folder, bars).run()
    return folder


@click.command("vote")
@TASK
@click.argument("run")
@click.argument("output")
@identity_option
@json_option
def vote_command(path: Path, run: str, output: str, identity_path: Path | None, as_json: bool) -> None:
    """Agree that the recipients may open OUTPUT of RUN (its first digits will do).

    Your share of its lock goes to the recipients, wrapped for them; you can't open the results by it. What the
    result's provenance says is checked first.
    """
    identity = open_identity(identity_path)
    task = load_task(path)
    matches = [known for known in task.runs if known.startswith(run)]
    if len(matches) != 1 or output not in task.contract.outputs:
        raise UsageError(
            f"there is no single run {run} with an output '{output}'", "'sealfs task results' lists them"
        )
    at, provenance = load_provenance(task, matches[0], output)
    lock = _lock_of(task, matches[0], output, provenance, at.address)
    task = change_task(path, lambda known: known.vote(lock, identity, now()))
    votes = task.votes(matches[0], output)
    if as_json:
        print_json({"run": matches[0], "output": output, "votes": sorted(votes), "needed": lock.votes})
    else:
        click.echo(f"{len(votes)} of {lock.votes} votes for {plain.quoted(output)}")
