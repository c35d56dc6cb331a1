"""The launcher: how keys come in, what it runs, and that nothing changes what is attached."""

# ruff: noqa: E501 - tables and pieces of programs
from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.conftest import RUNTIME, Sealed, seal

EXAMPLES = RUNTIME.parent / "examples"


def test_script_is_main_with_its_own_arguments(sealed: Sealed) -> None:
    code = "import sys, os\nprint(__name__, sys.argv[1:], os.path.dirname(sys.argv[0]) == sys.path[0], __file__ == sys.argv[0])"
    assert sealed.python(code, "a", "--data", "b").stdout == "__main__ ['a', '--data', 'b'] True True\n"


@pytest.mark.parametrize(
    ("code", "expected"),
    [("import sys; sys.exit(7)", 7), ("raise ValueError('x')", 1), ("import os; os.kill(os.getpid(), 15)", -15)],
)
def test_exit_code(sealed: Sealed, code: str, expected: int) -> None:
    assert sealed.python(code).returncode == expected


def test_other_programs(sealed: Sealed) -> None:
    assert sealed.run("cat", sealed.mount / "bin/small.bin", encoding="latin-1").returncode == 0
    assert sealed.run("sh", "-c", f"head -1 {sealed.mount}/text").stdout == "line 0 of the text\n"
    missing = sealed.run("no-such-program")
    assert missing.returncode != 0
    assert "no-such-program" in missing.stderr


def test_keys_are_in_no_environment_and_no_arguments(sealed: Sealed) -> None:
    code = """
import os, subprocess
print(open("/proc/self/environ").read(), open("/proc/self/cmdline").read(), os.environ)
print(subprocess.check_output(["cat", "/proc/self/environ", "/proc/self/cmdline"], text=True))
"""
    output = sealed.python(code).stdout
    secret = (sealed.home / "identity").read_text().splitlines()[1]
    _, keys, index = sealed.opened()
    for key in {keys.pack_key(index.pack(n).epoch) for n in range(index.packs)}:
        assert key.hex() not in output
        assert key not in output.encode("utf-8", "surrogateescape")
    assert secret not in output


def test_environment_changes_nothing(sealed: Sealed) -> None:
    code = """
import os, subprocess, sys
text = open(M + "/text").read()
for name in list(os.environ):
    del os.environ[name]
os.environ.update(SEALFS_RUNTIME="1:-1:-1:0:5", LD_PRELOAD="", SEALFS_DEBUG_CALLS="1")
print(open(M + "/text").read() == text, os.path.exists("/nowhere"))
for environment in ({}, {"SEALFS_RUNTIME": "1:-1:-1:0:5"}, {"LD_PRELOAD": ""}):
    print(subprocess.check_output(["/bin/cat", M + "/text"], env=environment, text=True) == text)
"""
    assert sealed.python(code).stdout == "True False\n" + "True\n" * 3


def test_own_libcrypto_of_the_application(sealed: Sealed) -> None:
    code = """
import hashlib, ssl
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
data = open(M + "/bin/large.bin", "rb").read()
print(hashlib.sha384(data).hexdigest() == hashlib.sha384(open(P + "/bin/large.bin", "rb").read()).hexdigest())
print(AESGCM(bytes(32)).decrypt(bytes(12), AESGCM(bytes(32)).encrypt(bytes(12), data, b""), b"") == data, bool(ssl.OPENSSL_VERSION))
"""
    assert sealed.python(code).stdout == "True\nTrue True\n"


def test_exported_names(library: Path) -> None:
    """Nothing of libcrypto, and nothing but what libc has or sealfs.h declares."""
    table = subprocess.check_output(["nm", "-D", "--defined-only", library], text=True)
    names = {line.split()[2].split("@")[0] for line in table.splitlines()}
    libc = subprocess.check_output(["nm", "-D", "--defined-only", _libc()], text=True)
    known = {line.split()[2].split("@")[0] for line in libc.splitlines()}
    declared = set(re.findall(r"\b(sealfs_\w+)\(", (RUNTIME / "include/sealfs.h").read_text()))
    assert names - known == declared


def _libc() -> str:
    with open("/proc/self/maps") as maps:
        return next(line.split()[-1] for line in maps if re.search(r"/libc[.-]", line))


def test_unfit_mount_paths(sealed: Sealed, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "file").touch()
    for mount, words in ((full, "empty directory"), (sealed.store, "empty directory")):
        done = Sealed(sealed.plain, sealed.store, mount, sealed.identity, sealed.home).python("print('ran')")
        assert (done.returncode, done.stdout) == (10, "")
        assert words in done.stderr


def test_two_datasets(sealed: Sealed, tmp_path: Path) -> None:
    plain = tmp_path / "second"
    plain.mkdir()
    (plain / "one").write_text("of the second")
    (plain / "over").symlink_to(sealed.mount / "text")
    (tmp_path / "sealed").mkdir()
    second = seal(tmp_path / "sealed", plain)
    # both stores list the first identity: the launcher has one identity
    with (second.home / "identity").open() as identity:
        number = identity.fileno()
        command = [sys.executable, "-m", "sealfs.enclave.launch", "--identity-fd", str(number)]
        command += ["--data", f"{second.store}:{second.mount}", "--data", f"{second.store}:{tmp_path}/again"]
        command += [
            "--",
            "sh",
            "-c",
            f"cat {second.mount}/one {tmp_path}/again/one; cd {tmp_path}/again && ls -U; cat ../sealed/mnt/tree/one",
        ]
        environment = {**os.environ, "PYTHONPATH": str(RUNTIME.parent)}
        done = subprocess.run(
            command, pass_fds=[number], env=environment, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("of the secondof the second")
    assert done.stdout.endswith("of the second")


def test_descriptors_outlive_thousands_of_others(sealed: Sealed) -> None:
    """What is known about placeholders is thrown out now and then, but not of those that are open."""
    code = """
import os
names = [f"{M}/many/{n:03}.bin" for n in range(120)]
held = [os.open(name, os.O_RDONLY) for name in names]
for turn in range(60):
    for name in names:
        os.close(os.open(name, os.O_RDONLY))
print(all(os.read(fd, 20_000) == open(name.replace(M, P), "rb").read() for fd, name in zip(held, names)))
"""
    assert sealed.python(code).stdout == "True\n"


def test_unprivileged_user(sealed: Sealed, tmp_path: Path) -> None:
    """Another user than root, for whom the placeholder's mode 0 means something."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    code = """
import os, subprocess
os.setgid(65534); os.setgroups([]); os.setuid(65534)
fd = os.open(M + "/text", os.O_RDONLY)
again = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
print(os.read(fd, 6), os.read(again, 6), os.stat(M + "/text").st_uid, os.access(M + "/text", os.R_OK))
print(subprocess.check_output(["cat"], stdin=fd)[:5])
try: open(M + "/bin/new", "w")
except OSError as error: print(error.errno)
"""
    # the objects lie below pytest's folders, which only root may enter
    for folder in (tmp_path / "public",):
        folder.mkdir()
        shutil.copytree(sealed.store, folder / "store")
    top = tmp_path
    while top.name and not top.name.startswith("pytest-of"):
        top.chmod(0o755)
        top = top.parent
    top.chmod(0o755)
    public = Sealed(sealed.plain, tmp_path / "public/store", tmp_path / "public/mnt", sealed.identity, sealed.home)
    done = public.python(code)
    assert done.stdout == "b'line 0' b'line 0' 65534 True\nb' of t'\n30\n", done.stderr


def test_debug_mode_reports_what_is_not_served(sealed: Sealed) -> None:
    code = "import ctypes, os\nl = ctypes.CDLL(None)\nprint(l.inotify_add_watch(l.inotify_init(), os.fsencode(M + '/text'), 2))"
    assert "not served: inotify_add_watch" in sealed.python(code, env={"SEALFS_DEBUG_CALLS": "1"}).stderr
    quiet = sealed.python(code)
    assert (quiet.stdout, quiet.stderr) == ("-1\n", "")


@pytest.fixture(scope="module")
def vessels(tmp_path_factory: pytest.TempPathFactory) -> Sealed:
    folder = tmp_path_factory.mktemp("vessels")
    subprocess.run(
        [sys.executable, EXAMPLES / "make_vessels.py", folder / "plain", "--count", "10", "--size", "64"],
        check=True,
    )
    return seal(folder, folder / "plain")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_training_prints_the_same_losses(vessels: Sealed, workers: int) -> None:
    script, options = EXAMPLES / "train_segmentation.py", ["--epochs", "2", "--workers", str(workers)]
    plain = subprocess.run(
        [sys.executable, script, vessels.plain, *options], capture_output=True, text=True, check=True
    )
    served = vessels.run(script, vessels.mount, *options)
    assert served.returncode == 0, served.stderr
    assert served.stdout == plain.stdout
    assert served.stdout.count("loss") == 2


@pytest.mark.slow
def test_no_system_call_names_a_sealed_path(vessels: Sealed, tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("no strace")
    code = f"""
import runpy, sys
sys.stderr.write("attached\\n")
sys.argv = ["train", M, "--epochs", "1", "--workers", "2"]
runpy.run_path({str(EXAMPLES / "train_segmentation.py")!r}, run_name="__main__")
"""
    script = vessels.home / "traced.py"
    script.write_text(f"M = {str(vessels.mount)!r}\n{code}")
    log = tmp_path / "log"
    with (vessels.home / "identity").open() as identity:
        number = identity.fileno()
        launch = [sys.executable, "-m", "sealfs.enclave.launch", "--identity-fd", str(number)]
        launch += ["--data", f"{vessels.store}:{vessels.mount}", "--", script]
        subprocess.run(
            ["strace", "-f", "-e", "trace=%file,%desc", "-e", "signal=none", "-o", log, *launch],
            pass_fds=[number], env={**os.environ, "PYTHONPATH": str(RUNTIME.parent)}, check=True, capture_output=True,
        )  # fmt: skip
    lines = log.read_text(errors="replace").splitlines()
    start = next(i for i, line in enumerate(lines) if "attached" in line)
    assert any("O_TMPFILE" in line for line in lines[start:])
    named = [
        line
        for line in lines[start:]
        if re.search(rf'"{re.escape(str(vessels.mount))}[/"]', line) and "execve(" not in line
    ]
    assert not named
