"""How a mount comes up, says so, and goes away: it leaves nothing behind, whatever ends it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import BIN, PATIENCE, Sealfs, detach, mounted, objects, python, runs, wait_for

from mount.conftest import MountFactory
from sealfs.mount.points import mounted_type

LESS_USUAL = [pytest.param(number, marks=pytest.mark.slow) for number in (signal.SIGINT, signal.SIGHUP)]
root_only = pytest.mark.skipif(os.getuid() != 0, reason="only root can do this")


@pytest.fixture(scope="module")
def store(provider: Sealfs) -> Path:
    source = provider.home / "source"
    source.mkdir()
    (source / "file").write_text("content")
    provider("push", source, provider.home / "store")
    return provider.home / "store"


@pytest.fixture
def point(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "mount point"
    folder.mkdir()
    yield folder
    detach(folder)


def pid_of(sealfs: Sealfs, point: Path) -> int:
    (report,) = sealfs("status", "--json", point).json
    return int(report["pid"])


def test_background_then_umount(store: Path, sealfs: Sealfs, point: Path) -> None:
    outcome = sealfs("mount", store, point)
    assert (point / "file").read_text() == "content"  # at once
    assert outcome.text == ""
    pid = pid_of(sealfs, point)
    assert os.getsid(pid) == pid  # it has let go of the terminal
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    sealfs("umount", point)
    assert mounted_type(str(point)) is None
    assert not runs(pid)
    assert sealfs("status").text == "nothing is mounted\n"
    assert not list((sealfs.home / "run").rglob("*.sock"))
    assert sealfs.log_of(point).read_text() == ""  # nothing to tell
    sealfs("mount", store, point)  # and again at the same place
    sealfs("umount", point)


@pytest.mark.parametrize("number", [signal.SIGTERM, *LESS_USUAL])
def test_signals_unmount(store: Path, mount: MountFactory, number: signal.Signals) -> None:
    here = mount(store)
    assert (here.path / "file").read_text() == "content"
    assert here.end(number) == 0
    assert mounted_type(str(here.path)) is None
    assert os.listdir(here.path) == []


def test_sigterm_while_files_are_open(store: Path, mount: MountFactory) -> None:
    """What is open cannot be read on, but nothing hangs and nothing stays."""
    here = mount(store)
    descriptor = os.open(here.path / "file", os.O_RDONLY)
    try:
        assert os.read(descriptor, 3) == b"con"
        assert here.end() == 0
        assert mounted_type(str(here.path)) is None
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        with pytest.raises(OSError, match=r"not connected|aborted|Input/output"):
            os.pread(descriptor, 100, 0)
    finally:
        with contextlib.suppress(OSError):  # not connected
            os.close(descriptor)


@pytest.mark.slow
def test_umount_by_the_system(store: Path, mount: MountFactory) -> None:
    here = mount(store)
    subprocess.run(["umount", here.path], check=True)
    assert here.process.wait(PATIENCE) == 0
    assert not list((here.sealfs.home / "run").rglob("*.sock"))


def test_kill_9_then_umount_cleans(store: Path, sealfs: Sealfs, point: Path) -> None:
    sealfs("mount", store, point)
    pid = pid_of(sealfs, point)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not runs(pid))
    with pytest.raises(OSError, match=r"not connected|connection abort"):
        os.listdir(point)
    assert sealfs("status").text == "nothing is mounted\n"  # nobody answers for it
    sealfs("umount", point)
    assert mounted_type(str(point)) is None
    sealfs("mount", store, point)
    assert (point / "file").read_text() == "content"
    sealfs("umount", point)


@pytest.mark.slow
def test_mount_over_the_ruins_of_a_killed_one(store: Path, sealfs: Sealfs, point: Path) -> None:
    sealfs("mount", store, point)
    pid = pid_of(sealfs, point)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not runs(pid))
    complaint = sealfs("mount", store, point, code=10).complaint
    assert "sealfs umount" in complaint


def test_busy_mount(store: Path, sealfs: Sealfs, point: Path) -> None:
    sealfs("mount", store, point)
    pid = pid_of(sealfs, point)
    with (point / "file").open() as file:
        complaint = sealfs("umount", point, code=10).complaint
        assert "busy" in complaint
        assert "--lazy" in complaint
        assert (point / "file").read_text() == "content"  # it is still there
        sealfs("umount", "--lazy", point)
        assert mounted_type(str(point)) is None
        assert file.read() == "content"  # who has it keeps it
    wait_for(lambda: not runs(pid))  # and with the last one the process ends


def test_unfit_mount_points(store: Path, sealfs: Sealfs, point: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").write_text("x")
    (tmp_path / "file").write_text("x")
    for place, words in {
        "full": "is not empty; mount on an empty folder",
        "missing": "does not exist; make it: mkdir -p",
        "file": "Not a directory",
    }.items():
        complaint = sealfs("mount", store, tmp_path / place, code=10).complaint
        assert words in complaint
        assert place in complaint
    assert (tmp_path / "full" / "precious").read_text() == "x"
    sealfs("mount", store, point)
    assert "is mounted already" in sealfs("mount", store, point, code=10).complaint
    assert (point / "file").read_text() == "content"
    sealfs("umount", point)


def test_umount_of_what_is_not_ours(sealfs: Sealfs, point: Path) -> None:
    for place in (point, "/proc", point / "nothing"):
        assert "no sealfs is mounted on" in sealfs("umount", place, code=10).complaint
        assert "no sealfs is mounted on" in sealfs("status", place, code=10).complaint
    assert os.path.ismount("/proc")


@pytest.mark.slow
def test_mount_point_behind_a_symlink(store: Path, sealfs: Sealfs, point: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(point)
    sealfs("mount", store, tmp_path / "link")
    assert (tmp_path / "link" / "file").read_text() == "content"
    assert "content" in (point / "file").read_text()
    assert sealfs("status", tmp_path / "link").text
    sealfs("umount", tmp_path / "link")
    assert mounted_type(str(point)) is None


@pytest.mark.slow
def test_odd_mount_point_names(store: Path, mount: MountFactory) -> None:
    for name in ("comma,space é", "tab\tnew\nline", "back\\slash"):
        here = mount(store, name=name)
        assert (here.path / "file").read_text() == "content"
        here.sealfs("umount", here.path)
        assert here.process.wait(PATIENCE) == 0


@pytest.mark.slow
def test_two_mounts_at_once(store: Path, sealfs: Sealfs, tmp_path: Path) -> None:
    with mounted(sealfs, store, tmp_path / "a") as first, mounted(sealfs, f"{store}@1", tmp_path / "b") as second:
        assert (first.path / "file").read_text() == (second.path / "file").read_text()
        reports = sealfs("status", "--json").json
        assert {report["mountpoint"] for report in reports} == {str(first.path), str(second.path)}
        assert {report["pid"] for report in reports} == {first.pid, second.pid}
        assert first.end() == 0
        assert (second.path / "file").read_text() == "content"


@pytest.mark.slow
def test_status_tells(store: Path, mount: MountFactory) -> None:
    here = mount(store)
    before = here.status()
    (here.path / "file").read_bytes()
    (report,) = here.sealfs("status", "--json", here.path).json
    assert report["reads"] > before["reads"]
    assert report["bytes_read"] >= len("content")
    assert report["errors"] == 0
    assert report["poisoned"] is None
    assert report["uri"] == store.as_uri()
    assert report["version"] == 1
    assert report["pid"] == here.pid
    assert abs(report["since"] - time.time()) < 600
    text = here.sealfs("status", here.path).text
    assert f"{here.path}  {store.as_uri()}@1" in text
    assert "0 failed" in text


def test_service_manager_is_told(store: Path, sealfs: Sealfs, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        channel.settimeout(PATIENCE)
        with mounted(sealfs, store, tmp_path / "mnt", env={"NOTIFY_SOCKET": str(tmp_path / "notify")}) as here:
            assert channel.recv(1000).decode().splitlines() == ["READY=1", f"STATUS=serving {store.as_uri()}"]
            assert here.end() == 0
            assert channel.recv(1000) == b"STOPPING=1"


@pytest.mark.slow
def test_service_manager_in_the_abstract_namespace_hears_of_damage(
    store: Path, sealfs: Sealfs, tmp_path: Path
) -> None:
    name = f"sealfs-test-{os.getpid()}-{time.monotonic_ns()}"
    shutil.copytree(store, tmp_path / "store")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind("\0" + name)
        channel.settimeout(PATIENCE)
        with mounted(sealfs, tmp_path / "store", tmp_path / "mnt", env={"NOTIFY_SOCKET": "@" + name}) as here:
            assert channel.recv(1000).startswith(b"READY=1\n")
            for path in objects(tmp_path / "store", "packs"):
                path.unlink()
            with pytest.raises(OSError, match="Input/output error"):
                (here.path / "file").read_text()
            assert channel.recv(1000).startswith(b"STATUS=INTEGRITY FAILURE: file: packs/")


@pytest.mark.parametrize(("command", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143)])
@pytest.mark.slow
def test_workload_passes_its_exit_code_on(
    store: Path, sealfs: Sealfs, point: Path, command: str, code: int
) -> None:
    script = f"cat '{point}/file'; {command}"
    outcome = sealfs("mount", store, point, "--", "sh", "-c", script, code=code)
    assert outcome.stdout == b"content"
    assert mounted_type(str(point)) is None


@pytest.mark.slow
def test_workload_that_is_not_there(store: Path, sealfs: Sealfs, point: Path) -> None:
    outcome = sealfs("mount", store, point, "--", "no-such-program", code=10)
    assert "cannot run 'no-such-program'" in outcome.stderr.splitlines()[-1]
    assert mounted_type(str(point)) is None


@pytest.mark.slow
def test_workload_gets_its_own_arguments_and_input(store: Path, sealfs: Sealfs, point: Path) -> None:
    outcome = sealfs("mount", store, point, "--", "cat", "-", "--", point / "file", stdin=b"typed ")
    assert outcome.stdout == b"typed content"


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_signals_reach_the_workload(
    store: Path, sealfs: Sealfs, point: Path, tmp_path: Path, number: signal.Signals
) -> None:
    script = """
import signal, sys, time
def leave(number, frame):
    print("told", number, flush=True)
    sys.exit(33)
signal.signal(signal.SIGTERM, leave)
signal.signal(signal.SIGINT, leave)
print("up", flush=True)
time.sleep(1000)
"""
    log = tmp_path / "log"
    process = sealfs.start("mount", store, point, "--", *python(script), log=log)
    try:
        wait_for(lambda: "up\n" in log.read_text())
        process.send_signal(number)
        assert process.wait(PATIENCE) == 33
        assert f"told {number.value}" in log.read_text()
        assert mounted_type(str(point)) is None
    finally:
        process.kill()
        process.wait()


def test_fstab_helper(store: Path, sealfs: Sealfs, point: Path, tmp_path: Path) -> None:
    identity = tmp_path / "kept elsewhere"
    sealfs.identity_path.rename(identity)
    done = helper(sealfs, store, point, "-o", f"ro,_netdev,noauto,identity={identity},allow_other,cache_memory=64M")
    assert done.returncode == 0, done.stderr
    try:
        assert (point / "file").read_text() == "content"
        with open("/proc/self/mounts") as mounts:
            (line,) = (line for line in mounts if str(tmp_path) in line)
        assert line.split()[2] == "fuse.sealfs"
        options = line.split()[3].split(",")
        assert "ro" in options
        assert "allow_other" in options
    finally:
        sealfs("umount", point)


def test_fstab_helper_refuses_what_it_does_not_know(store: Path, sealfs: Sealfs, point: Path) -> None:
    for options, words in {
        "ro,passwd=x": b"unknown mount option 'passwd=x'",
        "cache_size=many": b"'many' is not a size",
        "identity=/nowhere": b"no identity at /nowhere",
    }.items():
        done = helper(sealfs, store, point, "-o", options)
        assert done.returncode not in {0, 1}
        assert words in done.stderr
        assert done.stderr.count(b"\n") == 1
        assert mounted_type(str(point)) is None
    assert helper(sealfs, store).returncode == 2  # half a command


def helper(sealfs: Sealfs, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    command = [BIN / "mount.sealfs", *map(str, arguments)]
    return subprocess.run(command, env=sealfs.env, capture_output=True, timeout=PATIENCE, check=False)


@root_only
@pytest.mark.slow
def test_mount_command_of_the_system(store: Path, sealfs: Sealfs, point: Path) -> None:
    """What a line in fstab does, through the helper in the one place where mount(8) looks for it."""
    link = Path("/sbin/mount.sealfs")
    if link.exists():
        pytest.skip("there is a mount.sealfs on this machine already")
    link.symlink_to(BIN / "mount.sealfs")
    try:
        options = f"ro,noatime,identity={sealfs.identity_path},x-systemd.automount"
        command = ["mount", "-t", "sealfs", store, point, "-o", options]
        subprocess.run(command, env=sealfs.env, check=True, timeout=PATIENCE)
        assert (point / "file").read_text() == "content"
        subprocess.run(["umount", point], check=True, timeout=PATIENCE)
        wait_for(lambda: sealfs("status").text == "nothing is mounted\n")
    finally:
        link.unlink()


def test_no_threads_or_descriptors_are_left_by_much_use(store: Path, mount: MountFactory) -> None:
    here = mount(store)

    def counted() -> tuple[int, int]:
        return len(os.listdir(f"/proc/{here.pid}/task")), len(os.listdir(f"/proc/{here.pid}/fd"))

    def use() -> None:
        readers = [
            subprocess.Popen(["sh", "-c", f"for i in 1 2 3; do cat '{here.path}/file' && ls '{here.path}'; done"],
                             stdout=subprocess.DEVNULL)
            for _ in range(5)
        ]  # fmt: skip
        assert [reader.wait(PATIENCE) for reader in readers] == [0] * 5

    use()
    before = counted()
    for _ in range(4):
        use()
        here.status()
    after = counted()
    assert after[0] <= before[0] + 4  # followers that idle
    assert after[1] <= before[1] + 2


def test_ciphertext_mount_is_a_store_and_needs_no_key(
    store: Path, sealfs: Sealfs, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stranger = Sealfs(tmp_path_factory.mktemp("stranger"))
    with mounted(stranger, store, tmp_path / "sealed", "--ciphertext") as sealed:
        names = {path.relative_to(sealed.path) for path in sealed.path.rglob("*") if path.is_file()}
        assert {path.parts[0] for path in names} >= {"head", "snapshots", "indexes", "keyrings", "packs"}
        for name in names - {Path("head")}:
            assert (sealed.path / name).read_bytes() == (store / name).read_bytes()
        with mounted(sealfs, sealed.path, tmp_path / "plain") as plain:
            assert (plain.path / "file").read_text() == "content"


@pytest.mark.slow
def test_without_fuse_it_says_so(store: Path, sealfs: Sealfs, point: Path) -> None:
    """libfuse hidden: one line, and what to install."""
    script = (
        "import ctypes, sys\n"
        "def refuse(name, *rest, **more): raise OSError('hidden')\n"
        "real, ctypes.CDLL = ctypes.CDLL, refuse\n"
        "from sealfs.cli.main import main\n"
        "sys.argv = ['sealfs', *sys.argv[1:]]\n"
        "main()\n"
    )
    command = [sys.executable, "-c", script, "mount", str(store), str(point)]
    done = subprocess.run(command, env=sealfs.env, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 10
    assert "apt-get install fuse3" in done.stderr
    assert "Traceback" not in done.stderr
