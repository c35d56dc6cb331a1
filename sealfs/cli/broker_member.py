"""The verbs of `sealfs broker` by which members tell it what to do: people, keys of evidence, datasets."""

from __future__ import annotations

from pathlib import Path

import click

from sealfs.attestation.policy import Policy
from sealfs.broker.address import BrokerAddress
from sealfs.broker.members import Role
from sealfs.cli.broker_common import broker_option, member_of
from sealfs.cli.common import SignerParameter, identity_option, json_option, print_json
from sealfs.errors import UsageError
from sealfs.keys import Signer

_KINDS = {"runner": "sealfs-runner", "tpm": "tpm"}


@click.command("show")
@broker_option
@identity_option
@json_option
def show_command(address: BrokerAddress | None, identity_path: Path | None, as_json: bool) -> None:
    """Show members, enrolled keys, and, of your own, datasets and registered manifests."""
    broker = member_of(address, identity_path)
    greeting = broker.hello()
    members, enrolled = broker.members(), broker.enrolled()
    datasets = broker.datasets() if Role.OWNER in greeting.roles else []
    manifests = broker.manifests() if Role.OWNER in greeting.roles else []
    if as_json:
        print_json({"members": members, "enrolled": enrolled, "datasets": datasets, "manifests": manifests})
        return
    for member in members:
        you = " (you)" if member["name"] == greeting.name else ""
        click.echo(f"member {member['name']}{you}: {', '.join(member['roles']) or 'no role'}, {member['signer']}")
    for key in enrolled:
        click.echo(f"{key['kind']} {key['name']}: {key['value']}")
    for dataset in datasets:
        state = "withdrawn" if dataset["withdrawn"] else f"version {dataset['version']}"
        click.echo(f"dataset {dataset['dataset']}: {state}, needs {dataset['policy']['level']}")
    for manifest in manifests:
        why = f" ({manifest['findings'][0]})" if manifest["findings"] else ""
        click.echo(f"manifest {manifest['measurement']}: may serve {manifest['level']}{why}")


@click.command("member")
@click.argument("name")
@click.argument("signer", type=SignerParameter(), required=False)
@click.option("--role", "roles", multiple=True, type=click.Choice([str(role) for role in Role]),
              help="What they may do. Repeatable [default: owner].")  # fmt: skip
@click.option("--remove", is_flag=True, help="They may do nothing any more; what they own stays.")
@broker_option
@identity_option
def member_command(
    name: str,
    signer: Signer | None,
    roles: tuple[str, ...],
    remove: bool,
    address: BrokerAddress | None,
    identity_path: Path | None,
) -> None:
    """Let NAME, whose SIGNER is a string or a .pub file, use the broker; or change what they may do. For admins."""
    broker = member_of(address, identity_path)
    known = next((member for member in broker.members() if member["name"] == name), None)
    if remove:
        if known is None:
            raise UsageError(f"there is no member '{name}'", "'sealfs broker show' lists them")
        broker.call("remove-member", {"name": name, "revision": known["revision"]})
        click.echo(f"'{name}' is no member any more")
        return
    if signer is None and known is None:
        raise UsageError(f"there is no member '{name}' yet", "name their signer string or .pub file")
    chosen = list(roles) or (known["roles"] if known else [Role.OWNER])
    broker.call(
        "set-member",
        {
            "name": name,
            "signer": str(signer) if signer else known["signer"] if known else "",
            "roles": [str(role) for role in chosen],
            "revision": known["revision"] if known else 0,
        },
    )
    click.echo(f"'{name}' is {' and '.join(chosen)}")


@click.command("enrol")
@click.argument("kind", type=click.Choice(sorted(_KINDS)))
@click.argument("name")
@click.argument("key", required=False, metavar="KEY|FILE")
@click.option("--remove", is_flag=True, help="Evidence signed with it proves nothing any more.")
@broker_option
@identity_option
def enrol_command(
    kind: str, name: str, key: str | None, remove: bool, address: BrokerAddress | None, identity_path: Path | None
) -> None:
    """Believe evidence signed with KEY: a runner's signer or .pub file, or a TPM's key in PEM. For admins."""
    broker = member_of(address, identity_path)
    known = next((k for k in broker.enrolled() if (k["kind"], k["name"]) == (_KINDS[kind], name)), None)
    place = {"kind": _KINDS[kind], "name": name, "revision": known["revision"] if known else 0}
    if remove:
        broker.call("strike", place)
        click.echo(f"{kind} '{name}' is not believed any more")
        return
    if key is None:
        raise UsageError("which key?", "a signer string, or a file that has the key")
    broker.call("enrol", {**place, "value": _public_key(kind, key)})
    click.echo(f"{kind} '{name}' is enrolled")


@click.command("policy")
@click.argument("dataset")
@click.argument("policy", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@broker_option
@identity_option
def policy_command(dataset: str, policy: Path, address: BrokerAddress | None, identity_path: Path | None) -> None:
    """Demand what the file POLICY says for the keys of DATASET (its id, see 'sealfs stat') from now on."""
    broker = member_of(address, identity_path)
    identifier = _dataset_id(dataset)
    changed = Policy.parse(policy.read_bytes())
    broker.set_policy(identifier, changed, broker.held(identifier).revision)
    click.echo(f"dataset {dataset} needs {changed.level} from now on")


@click.command("withdraw")
@click.argument("dataset")
@broker_option
@identity_option
def withdraw_command(dataset: str, address: BrokerAddress | None, identity_path: Path | None) -> None:
    """Release the keys of DATASET (its id) to nobody any more. A key that was released can't be taken back."""
    broker = member_of(address, identity_path)
    identifier = _dataset_id(dataset)
    broker.withdraw(identifier, broker.held(identifier).revision)
    click.echo(f"the keys of dataset {dataset} are released to nobody any more, until it is pushed again")


commands = (show_command, member_command, enrol_command, policy_command, withdraw_command)


def _public_key(kind: str, key: str) -> str:
    if kind == "runner":
        return str(SignerParameter().convert(key, None, None))
    try:
        return Path(key).read_text()
    except OSError as error:
        raise UsageError(f"cannot read {key}: {error.strerror}", "name a file with the key in PEM") from None


def _dataset_id(text: str) -> bytes:
    try:
        identifier = bytes.fromhex(text)
    except ValueError:
        identifier = b""
    if len(identifier) != 16:
        raise UsageError(f"'{text}' is no dataset's id", "'sealfs stat URI' shows it: 32 hex digits")
    return identifier
