"""`sealfs task share | entrust`: a dataset of several owners, whose brokers hold a share of its key each."""

from __future__ import annotations

from pathlib import Path

import click

from sealfs.attestation.canonical import Members, canonical, parse_json
from sealfs.attestation.policy import Policy
from sealfs.broker.address import BrokerAddress
from sealfs.broker.owner import BrokerMember
from sealfs.cli.common import (
    RecipientParameter,
    SignerParameter,
    dataset_at,
    identity_option,
    open_identity,
    signer_option,
)
from sealfs.contracts.shares import split
from sealfs.dataset.keyring import DATASET_ID_SIZE, DatasetKeys
from sealfs.dataset.snapshot import MAX_VERSION
from sealfs.errors import DocumentError, LocalIOError, UsageError
from sealfs.keys import Signer

_FORMAT = "sealfs-share-1"
_MAX_SIZE = 4 << 20


@click.command("share")
@click.argument("uri")
@click.argument("owners", nargs=-1, required=True, metavar="OWNER.pub...")
@click.option("--to", "folder", required=True, type=click.Path(path_type=Path), help="Folder for a file for each.")
@signer_option
@identity_option
def share_command(
    uri: str, owners: tuple[str, ...], folder: Path, signer: Signer | None, identity_path: Path | None
) -> None:
    """Cut the key of the dataset at URI into a share for each OWNER, all of which are needed to open it.

    Each gets a file that only they can open, and puts it at their own broker: sealfs task entrust. After a new push
    share again, with the owners in the same order. You have the whole key, as has whoever you grant it.
    """
    keys_of = [
        (SignerParameter().convert(owner, None, None), RecipientParameter().convert(owner, None, None))
        for owner in owners
    ]
    names = [f"{Path(owner).stem}.share" for owner in owners]
    if len(set(names)) != len(names):
        raise UsageError("two owners' files have the same name, and so would their shares", "rename one of them")
    with dataset_at(uri, signer) as dataset:
        keys = dataset.keys(open_identity(identity_path))
        snapshot, digest = dataset.snapshot, dataset.ref.sha256.hex()
    shares = split(keys, [owner for owner, _ in keys_of])
    folder.mkdir(parents=True, exist_ok=True)
    for name, (_, recipient), share in zip(names, keys_of, shares, strict=True):
        wrapped = recipient.wrap(share.pack(), _context(snapshot.dataset))
        document = {
            "format": _FORMAT,
            "dataset": snapshot.dataset.hex(),
            "version": snapshot.version,
            "snapshot": digest,
            "signer": str(snapshot.signer),
            "share": wrapped.hex(),
        }
        path = folder / name
        path.write_bytes(canonical(document))
        click.echo(str(path))


@click.command("entrust")
@click.argument("share", type=click.Path(path_type=Path))
@click.option("--broker", required=True, metavar="URL", help="Your broker.")
@click.option("--policy", type=click.Path(path_type=Path), help="What it is to demand; needed the first time.")
@identity_option
def entrust_command(share: Path, broker: str, policy: Path | None, identity_path: Path | None) -> None:
    """Put your SHARE of a dataset's key at your broker, which releases it as POLICY says."""
    identity = open_identity(identity_path)
    try:
        with share.open("rb") as file:
            data = file.read(_MAX_SIZE)
        demanded = Policy.parse(policy.read_bytes()) if policy else None
    except OSError as error:
        raise LocalIOError(f"cannot read {error.filename}: {error.strerror}") from None
    what = "the share"
    members = Members(parse_json(data, what, _MAX_SIZE), what)
    members.only("format", "dataset", "version", "snapshot", "signer", "share").text("format", _FORMAT)
    dataset = members.hexadecimal("dataset", DATASET_ID_SIZE)
    try:
        signer = Signer.parse(members.text("signer"))
    except UsageError as error:
        raise DocumentError(f"{what}: {error.message}") from None
    packed = identity.unwrap(bytes.fromhex(members.text("share", r"(?:[0-9a-f]{2}){1,1000000}")), _context(dataset))
    keys = DatasetKeys.unpack(dataset, packed)
    member = BrokerMember(BrokerAddress.parse(broker), identity)
    version, digest = members.integer("version", 1, MAX_VERSION), members.hexadecimal("snapshot", 32)
    member.publish(keys, version, digest, signer, demanded, member.held(dataset).revision)
    click.echo(f"the share of dataset {dataset.hex()} version {version} is at {broker.partition('#')[0]}")


def _context(dataset: bytes) -> bytes:
    return b"sealfs 1 share of " + dataset
