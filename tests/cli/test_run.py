"""`sealfs run`, natively: data in, results out, exit codes, signals, damage."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from commands import PATIENCE, Outcome, Sealfs, end, flip_bit, objects, python, runs, wait_for

from sealfs.dataset.dataset import Dataset
from sealfs.dataset.trust import TrustStore
from sealfs.enclave.attach import INTEGRITY_EXIT, LIBRARY
from sealfs.enclave.keysource import write_preshared_keys
from sealfs.keys import Identity, load_identity
from sealfs.mount.points import mounted_type
from sealfs.store.local import LocalStore
from sealfs.workload import SIGNALS

MARK = b"PLAINTEXT-THAT-MUST-NOT-LEAVE"


@pytest.fixture(scope="module", autouse=True)
def _fuse() -> None:
    if not os.path.exists("/dev/fuse"):
        pytest.skip("there is no /dev/fuse")


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Sealfs:
    return Sealfs(tmp_path_factory.mktemp("provider"), Identity.generate())


@pytest.fixture(scope="module")
def pushed(provider: Sealfs) -> Path:
    """A store with files of numbers; the second version has one more."""
    source, store = provider.home / "source", provider.home / "store"
    source.mkdir()
    for number in range(20):
        (source / str(number)).write_bytes(MARK + os.urandom(50_000))
    provider("push", source, store)
    (source / "new").write_bytes(b"second version")
    provider("push", source, store)
    return store


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def _nothing_left(tmp_path: Path) -> object:
    before = set(Path("/dev/shm").glob("sealfs-out-*"))
    yield
    new = set(Path("/dev/shm").glob("sealfs-out-*")) - before
    left = [path for path in new if not runs(int(path.name.split("-")[2]))]  # others may be running tests, too
    assert not left, "plaintext left in memory"
    assert not (tmp_path / "out").is_symlink()


def fuse(uri: object, path: Path) -> list[str]:
    return ["--attach", "fuse", "--data", f"{uri}:{path}"]


def test_reads_data_and_seals_results(provider: Sealfs, pushed: Path, data: Path, tmp_path: Path) -> None:
    script = """
import os, pathlib, sys
data, out = map(pathlib.Path, sys.argv[1:])
assert sorted(os.listdir(data)) == sorted([*map(str, range(20)), "new"])
for path in data.iterdir():
    (out / path.name).write_bytes(path.read_bytes())
assert (os.stat(out).st_mode & 0o777) == 0o700
print("streamed")
print("and this", file=sys.stderr)
sys.exit(7)
"""
    out, results = tmp_path / "out", tmp_path / "results"
    words = [*fuse(pushed, data), "--out", f"{results}:{out}", "--", *python(script, data, out)]
    ended = provider("run", *words, code=7)
    assert ended.lines == ["streamed"]
    assert "and this" in ended.stderr
    assert "NO ENCLAVE" in ended.stderr
    assert not out.exists()
    assert mounted_type(str(data)) is None
    assert len(provider("ls", results).lines) == 21
    provider("verify", results)
    provider("pull", results, tmp_path / "pulled")
    source = provider.home / "source"
    for path in source.iterdir():
        assert (tmp_path / "pulled" / path.name).read_bytes() == path.read_bytes()
    assert "exit code 7" in provider("log", results).text
    assert not any(MARK in path.read_bytes() for path in results.rglob("*") if path.is_file())


def test_several_datasets_and_an_older_version(provider: Sealfs, pushed: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    script = "import os, sys; print(len(os.listdir(sys.argv[1])), len(os.listdir(sys.argv[2])))"
    words = [*fuse(pushed, data), "--data", f"{pushed}@1:{tmp_path / 'old'}"]
    ended = provider("run", *words, "--", *python(script, data, tmp_path / "old"))
    assert ended.lines == ["21 20"]


def test_results_for_somebody_else(provider: Sealfs, tmp_path: Path) -> None:
    reader = Sealfs(tmp_path / "reader", Identity.generate())
    public = reader.identity_path.with_name("identity.pub")
    out, results = tmp_path / "out", tmp_path / "results"
    words = ["--out", f"{results}:{out}", "--out-recipient", public]
    ended = provider("run", *words, "--", "sh", "-c", f"echo 0.5 > {out}/loss")
    signer = ended.stderr.split("signed by ")[1].split()[0]
    assert reader("cat", "--signer", signer, results, "loss").stdout == b"0.5\n"
    assert provider("cat", results, "loss", code=4)


def damage(store: Path, copy: Path) -> Path:
    shutil.copytree(store, copy)
    flip_bit(objects(copy, "packs")[0], 300_000)
    return copy


@pytest.mark.parametrize("swallows", [False, True])
def test_damage_kills_the_workload(
    provider: Sealfs, pushed: Path, data: Path, tmp_path: Path, swallows: bool
) -> None:
    """Also one that goes on as if nothing had happened, with a child; what it made of it is not sealed."""
    script = """
import pathlib, subprocess, sys, time
data, out, swallows = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3] == "True"
child = subprocess.Popen(["sleep", "60"])
(out.parent / "child").write_text(str(child.pid))
for path in sorted(data.iterdir()):
    try:
        path.read_bytes()
    except OSError:
        if not swallows:
            raise
(out / "model").write_text("made of damaged data")
sys.exit(0)
"""
    out, results = tmp_path / "out", tmp_path / "results"
    bad = damage(pushed, tmp_path / "bad")
    words = [*fuse(bad, data), "--out", f"{results}:{out}", "--", *python(script, data, out, swallows)]
    ended = provider("run", *words, code=5)
    assert "the workload was killed" in ended.stderr
    assert provider("ls", results).lines == []
    wait_for(lambda: not runs(int((tmp_path / "child").read_text())))
    assert mounted_type(str(data)) is None


def start(provider: Sealfs, log: Path, *words: object) -> subprocess.Popen[bytes]:
    return provider.start("run", *words, log=log)


@pytest.mark.parametrize("number", SIGNALS)
def test_signals_are_passed_on_and_results_sealed(
    provider: Sealfs, pushed: Path, data: Path, tmp_path: Path, number: signal.Signals
) -> None:
    script = """
import pathlib, signal, sys, time
out = pathlib.Path(sys.argv[1])
def handler(number, frame):
    (out / "told").write_text(str(int(number)))
    sys.exit(9)
for number in (1, 2, 3, 10, 12, 15):
    signal.signal(number, handler)
print("ready", flush=True)
time.sleep(60)
"""
    out, results, log = tmp_path / "out", tmp_path / "results", tmp_path / "log"
    words = [*fuse(pushed, data), "--out", f"{results}:{out}", "--", *python(script, out)]
    process = start(provider, log, *words)
    try:
        wait_for(lambda: b"ready" in log.read_bytes() or process.poll() is not None)
        process.send_signal(number)
        assert process.wait(PATIENCE) == 9, log.read_text()
    finally:
        end(process)
    assert provider("cat", results, "told").text == str(int(number))
    assert mounted_type(str(data)) is None


def test_killed_workload_and_interval(provider: Sealfs, tmp_path: Path) -> None:
    """What a workload leaves that kills itself is sealed, and so is what it had an interval ago."""
    out, results = tmp_path / "out", tmp_path / "results"
    script = f"echo 1 > {out}/a; sleep 3; echo 2 > {out}/a; kill -9 $$"
    words = ["--out", f"{results}:{out}", "--out-interval", "0.5", "--", "sh", "-c", script]
    provider("run", *words, code=137)
    assert provider("cat", f"{results}@2", "a").text == "1\n"
    assert provider("cat", results, "a").text == "2\n"


def test_killed_run_leaves_no_mount(provider: Sealfs, pushed: Path, data: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = start(provider, log, *fuse(pushed, data), "--", "sh", "-c", "echo ready; exec sleep 5")
    try:
        wait_for(lambda: b"ready" in log.read_bytes() or process.poll() is not None)
        assert mounted_type(str(data)) is not None, log.read_text()
        process.kill()
        process.wait()
        wait_for(lambda: mounted_type(str(data)) is None)
    finally:
        end(process)


def test_results_that_get_nowhere_fail_the_run_and_are_kept(provider: Sealfs, tmp_path: Path) -> None:
    out, results = tmp_path / "out", tmp_path / "results"
    script = f"echo precious > {out}/model; rm -rf {results}; touch {results}"
    ended = provider("run", "--out", f"{results}:{out}", "--", "sh", "-c", script, code=None)
    assert ended.code not in {0, 1}
    assert "the results did not get to" in ended.stderr
    kept = Path(ended.stderr.split("sealfs push ")[1].split()[0])
    assert (kept / "model").read_text() == "precious\n"
    assert not out.exists()
    shutil.rmtree(kept.parent)


def complains(ended: Outcome, *words: str) -> None:
    for word in words:
        assert word in ended.stderr


def test_refused_before_anything_runs(provider: Sealfs, pushed: Path, data: Path, tmp_path: Path) -> None:
    out, results = tmp_path / "out", tmp_path / "results"
    touch = ["--", "touch", tmp_path / "ran"]
    provider("run", *fuse(pushed, data), "--executor", "gramin", *touch, code=2)
    provider("run", "--data", f"{pushed}", *touch, code=2)
    provider("run", "--data", "s3://bucket/prefix", *touch, code=2)
    provider("run", *fuse(pushed, data), "--out", f"{results}:{data / 'out'}", *touch, code=2)
    provider("run", *fuse(pushed, tmp_path / "missing"), *touch, code=10)
    provider("run", *fuse(tmp_path / "nothing", data), *touch, code=3)
    provider("run", "--out", f"{pushed}:{out}", *touch, code=2)
    provider("run", "--out", f"{results}:{tmp_path / 'no' / 'such'}", *touch, code=2)
    out.mkdir()
    (out / "mine").touch()
    provider("run", "--out", f"{results}:{out}", *touch, code=2)
    assert (out / "mine").exists()
    stranger = Sealfs(tmp_path / "stranger", Identity.generate())
    stranger("run", *fuse(pushed, data), *touch, code=4)
    assert not (tmp_path / "ran").exists()
    assert not results.exists()
    complains(provider("run", "--", "/no/such/command", code=10), "/no/such/command")


def test_output_left_by_a_killed_run_is_not_swept_away(provider: Sealfs, tmp_path: Path) -> None:
    out, results, log = tmp_path / "out", tmp_path / "results", tmp_path / "log"
    words = ["--out", f"{results}:{out}", "--", "sh", "-c", f"echo 1 > {out}/a; echo ready; exec sleep 5"]
    process = start(provider, log, *words)
    try:
        wait_for(lambda: b"ready" in log.read_bytes() or process.poll() is not None)
        process.kill()
        process.wait()
    finally:
        end(process)
    kept = out.readlink()
    ended = provider("run", "--out", f"{tmp_path / 'other'}:{out}", "--", "true", code=2)
    complains(ended, "left behind by a run that was killed", str(kept))
    assert (kept / "a").read_text() == "1\n"
    out.unlink()
    shutil.rmtree(kept.parent)


def test_an_empty_folder_comes_back(provider: Sealfs, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir(mode=0o750)
    provider("run", "--out", f"{tmp_path / 'results'}:{out}", "--", "touch", out / "x")
    assert out.is_dir()
    assert not out.is_symlink()
    assert (out.stat().st_mode & 0o777) == 0o750
    assert list(out.iterdir()) == []


def test_dry_run_says_what_would_run(provider: Sealfs, pushed: Path, data: Path, tmp_path: Path) -> None:
    out, results = tmp_path / "out", tmp_path / "results"
    words = [*fuse(pushed, data), "--out", f"{results}:{out}", "--dry-run", "--", "touch", "two words"]
    ended = provider("run", *words)
    assert ended.lines[-1] == "touch 'two words'"
    assert f"{pushed.as_uri()} at {data} (FUSE)" in ended.text
    assert not results.exists()
    assert not out.exists()


def test_secrets_are_in_no_argument_and_no_variable(
    provider: Sealfs, pushed: Path, data: Path, tmp_path: Path
) -> None:
    secret = provider.identity_path.read_text().split("\n")[1].split(":")[1]
    script = """
import os, pathlib, sys
pid = os.getppid()
for name in ("environ", "cmdline"):
    sys.stdout.buffer.write(pathlib.Path(f"/proc/{pid}/{name}").read_bytes())
    sys.stdout.buffer.write(pathlib.Path(f"/proc/self/{name}").read_bytes())
"""
    ended = provider("run", *fuse(pushed, data), "--", *python(script))
    assert len(secret) > 100
    assert secret.encode() not in ended.stdout
    assert secret not in ended.stderr


def test_runs_side_by_side_do_not_disturb_each_other(provider: Sealfs, tmp_path: Path) -> None:
    runs_ = []
    for number in range(3):
        out = tmp_path / f"out{number}"
        words = [
            "--out",
            f"{tmp_path / f'results{number}'}:{out}",
            "--",
            "sh",
            "-c",
            f"sleep 1; echo {number} > {out}/n",
        ]
        runs_.append(start(provider, tmp_path / f"log{number}", *words))
    for number, process in enumerate(runs_):
        assert process.wait(PATIENCE) == 0, (tmp_path / f"log{number}").read_text()
        assert provider("cat", tmp_path / f"results{number}", "n").text == f"{number}\n"


preload = pytest.mark.skipif(not LIBRARY.exists(), reason="libsealfs.so has not been built")

COPY = """
import os, pathlib, sys
data, out = map(pathlib.Path, sys.argv[1:])
for path in data.iterdir():
    (out / path.name).write_bytes(path.read_bytes())
print(len(os.listdir(data)))
"""


@preload
@pytest.mark.parametrize("version", ["", "@1"])
def test_preload(provider: Sealfs, pushed: Path, tmp_path: Path, version: str) -> None:
    """The default: no mount of plaintext; an older version comes through a mount of its ciphertext."""
    data, out, results = tmp_path / "attached", tmp_path / "out", tmp_path / "results"
    data.mkdir()
    words = ["--data", f"{pushed}{version}:{data}", "--out", f"{results}:{out}", "--", *python(COPY, data, out)]
    pins = sorted((provider.home / "state" / "sealfs" / "trust").iterdir())
    ended = provider("run", *words)
    assert ended.lines == ["20" if version else "21"]
    assert list(data.iterdir()) == []
    provider("pull", results, tmp_path / "pulled")
    source = provider.home / "source"
    for name in map(str, range(20)):
        assert (tmp_path / "pulled" / name).read_bytes() == (source / name).read_bytes()
    left = sorted((provider.home / "state" / "sealfs" / "trust").iterdir())
    assert len(left) <= len(pins) + 1, "a pin for a place that is gone"


@preload
def test_preload_script_in_the_same_interpreter(provider: Sealfs, pushed: Path, data: Path, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import os, sys\nassert __name__ == '__main__'\nprint(len(os.listdir(sys.argv[1])))\nsys.exit(6)\n"
    )
    ended = provider("run", "--data", f"{pushed}:{data}", "--", script, data, code=6)
    assert ended.lines == ["21"]


HELD = """
import os, sys
def held():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
file = os.open(sys.argv[1], os.O_RDONLY)
before = held()
for position in range(0, os.fstat(file).st_size, 10_000):
    os.pread(file, 100, position)
print(held() - before)
"""


@preload
def test_preload_memory(provider: Sealfs, data: Path, tmp_path: Path) -> None:
    source, store, script = tmp_path / "source", tmp_path / "store", tmp_path / "script.py"
    source.mkdir()
    (source / "big").write_bytes(os.urandom(80 << 20))
    script.write_text(HELD)
    provider("push", source, store)

    def held(*options: object) -> int:
        ended = provider("run", *options, "--data", f"{store}:{data}", "--", script, data / "big")
        return int(ended.lines[-1])

    assert held("--cache-memory", "4M") < 20 << 20
    assert 75 << 20 < held() < 100 << 20


@preload
def test_preload_damage(provider: Sealfs, pushed: Path, data: Path, tmp_path: Path) -> None:
    """Nothing that a workload makes of damaged data is sealed, whether it noticed or not."""
    out, results = tmp_path / "out", tmp_path / "results"
    bad = damage(pushed, tmp_path / "bad")
    script = """
import pathlib, sys
data, out = map(pathlib.Path, sys.argv[1:])
for path in data.iterdir():
    try:
        path.read_bytes()
    except OSError:
        pass
(out / "model").write_text("made of damaged data")
"""
    words = ["--data", f"{bad}:{data}", "--out", f"{results}:{out}", "--", *python(script, data, out)]
    ended = provider("run", *words, code=None)
    assert ended.code in {5, INTEGRITY_EXIT}, ended
    assert provider("ls", results).lines == []


@preload
def test_preload_keeps_the_identity_out_of_sight(provider: Sealfs, pushed: Path, data: Path) -> None:
    secret = provider.identity_path.read_text().split("\n")[1].split(":")[1].encode()
    script = """
import os, pathlib, sys
for pid in ("self", os.getppid()):
    for name in ("environ", "cmdline"):
        sys.stdout.buffer.write(pathlib.Path(f"/proc/{pid}/{name}").read_bytes())
for name in os.listdir("/proc/self/fd"):
    print(os.readlink(f"/proc/self/fd/{name}") if os.path.lexists(f"/proc/self/fd/{name}") else "")
"""
    ended = provider("run", "--data", f"{pushed}:{data}", "--", *python(script))
    assert secret not in ended.stdout
    assert str(provider.identity_path).encode() not in ended.stdout, (
        "the workload inherits the identity's descriptor"
    )


@preload
@pytest.mark.parametrize("attach", ["preload", "fuse"])
def test_locked_identity(provider: Sealfs, pushed: Path, data: Path, tmp_path: Path, attach: str) -> None:
    locked, word = tmp_path / "locked", tmp_path / "word"
    load_identity(provider.identity_path).save(locked, "passphrase")
    words = ["run", "-i", locked, "--attach", attach, "--data", f"{pushed}:{data}", "--", "cat", data / "new"]
    ended = provider(*words, code=4)
    assert "locked" in ended.stderr
    word.write_text("wrong\n")
    ended = provider(*words, env={"SEALFS_PASSPHRASE_FILE": str(word)}, code=4)
    assert "wrong passphrase" in ended.stderr
    word.write_text("passphrase\n")
    assert provider(*words, env={"SEALFS_PASSPHRASE_FILE": str(word)}).text == "second version"


@preload
@pytest.mark.parametrize("attach", ["preload", "fuse"])
def test_preshared_keys_need_no_identity(
    provider: Sealfs, pushed: Path, data: Path, tmp_path: Path, attach: str
) -> None:
    keys = Dataset.open(LocalStore(pushed), TrustStore(tmp_path / "trust")).keys(
        load_identity(provider.identity_path)
    )
    write_preshared_keys(tmp_path / "keys", [keys])
    nobody = Sealfs(tmp_path / "nobody")
    words = ["run", "--attach", attach, "--data", f"{pushed}:{data}"]
    assert nobody(*words, "--test-keys", tmp_path / "keys", "--", "cat", data / "new").text == "second version"
    nobody(*words, "--", "true", code=4)


@preload
@pytest.mark.parametrize("attach", ["preload", "fuse"])
def test_signers_and_versions(provider: Sealfs, pushed: Path, data: Path, tmp_path: Path, attach: str) -> None:
    stranger = Sealfs(tmp_path / "stranger", Identity.generate())
    snapshot = provider("stat", "--json", f"{pushed}@1").json["snapshot"]
    newcomer = Sealfs(tmp_path / "newcomer")
    words = ["run", "-i", provider.identity_path, "--attach", attach, "--data", f"{pushed}@{snapshot}:{data}"]
    mine, theirs = (who.identity_path.with_name("identity.pub") for who in (provider, stranger))
    show = ["--", "ls", data]
    newcomer(*words, "--signer", theirs, *show, code=6)
    newcomer(*words, "--signer", mine, "--signer", f"{data}={theirs}", *show, code=6)
    newcomer(*words, "--signer", f"{data}={theirs}", "--signer", f"{data}={mine}", *show, code=2)
    newcomer(*words, "--signer", f"/elsewhere={mine}", *show, code=2)
    ended = newcomer(*words, "--signer", theirs, "--signer", f"{data}={mine}", *show)
    assert len(ended.lines) == 20
    assert "first use" not in ended.stderr


@pytest.mark.skipif(LIBRARY.exists(), reason="libsealfs.so is there")
def test_preload_that_is_not_there_is_no_silent_mount(provider: Sealfs, pushed: Path, data: Path) -> None:
    ended = provider("run", "--data", f"{pushed}:{data}", "--", "true", code=12)
    assert "--attach fuse" in ended.stderr


def test_what_is_printed_goes_to_results_of_enclaves_only(sealfs: Sealfs, tmp_path: Path) -> None:
    out = f"{tmp_path / 'results'}:{tmp_path / 'out'}"
    assert "natively: sh -c" in sealfs("run", "--out", out, "--out-log", "log", "--", "true", code=2).stderr
    enclave = ["--executor", "gramine-sgx", "--enclave", tmp_path / "enclave"]
    assert "--out-log is for" in sealfs("run", *enclave, "--out-log", "log", "--", "true", code=2).stderr
    assert "--out-log is for" in sealfs("measure", *enclave, "--out-log", "log", "--", "true", code=2).stderr
    for name in ("a/b", "", "..", "."):
        wrong = sealfs("run", *enclave, "--out", out, "--out-log", name, "--", "true", code=2).stderr
        assert "is not the name of a file" in wrong
