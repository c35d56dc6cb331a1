"""`sealfs measure` and `sealfs lint`: the same measurement for the same inputs, another for any other."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tomllib
from pathlib import Path

import pytest
from broker.tools import running
from commands import Sealfs
from servers import moto_server

from sealfs.executors.base import MANIFEST
from sealfs.executors.launcher import LAUNCHER
from sealfs.keys import Identity, load_identity

pytestmark = [
    pytest.mark.skipif(shutil.which("strace") is None, reason="there is no strace"),
]

# Stand-ins for Gramine's tools, which record how they are called. The "measurement" is the hash of the manifest.
TOOLS = {
    "gramine-manifest": """
import sys
text = open(sys.argv[1]).read()
text = text.replace("{{ gramine.libos }}", "/usr/lib/gramine/libsysdb.so")
open(sys.argv[2], "w").write(text.replace("{{ gramine.runtimedir() }}", "/usr/lib/gramine/runtime/glibc"))
""",
    "gramine-sgx-gen-private-key": """
import os
folder = os.environ["XDG_CONFIG_HOME"] + "/gramine"
os.mkdir(folder)
open(folder + "/enclave-key.pem", "x").close()
""",
    "gramine-sgx-sign": """
import hashlib, os, sys
assert os.path.exists(os.environ["XDG_CONFIG_HOME"] + "/gramine/enclave-key.pem")
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
text = open(options["--manifest"]).read()
open(options["--output"], "w").write(text)
open("workload.sig", "w").write(hashlib.sha256(text.encode()).hexdigest())
""",
    "gramine-sgx-sigstruct-view": """
import json, sys
assert sys.argv[1:3] == ["--output-format", "json"]
print(json.dumps({"mr_enclave": open(sys.argv[3]).read()}))
""",
    "gramine-sgx": """
import json, os, sys, tomllib
manifest = tomllib.load(open(sys.argv[1] + ".manifest.sgx", "rb"))
seen = {n: sorted(os.listdir("ciphertext/" + n)) for n in sorted(os.listdir("ciphertext"))}
print(json.dumps({"stdin": sys.stdin.read()[:20], "argv": manifest["loader"]["argv"], "ciphertext": seen}))
open("results/came-from-the-enclave", "w").write("sealed")
sys.exit(17)
""",
}


@pytest.fixture
def tools(tmp_path: Path) -> str:
    """A PATH that has them."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name, script in TOOLS.items():
        (folder / name).write_text(f"#!{sys.executable}{script}")
        (folder / name).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@pytest.fixture
def sealfs(tmp_path: Path) -> Sealfs:
    return Sealfs(tmp_path / "home", Identity.generate())


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    project = tmp_path / "project"
    project.mkdir()
    (project / "model.py").write_text("layers = 3\n")
    (project / "train.py").write_text("import model\nprint('trained')\n")
    monkeypatch.chdir(project)
    return project


def options(name: str = "gramine-sgx") -> list[object]:
    return ["--executor", name, "--enclave", "enclave"]


def measured(sealfs: Sealfs, path: str, *more: object) -> dict[str, object]:
    """What it prints with `--json`, without the commands: the first time they make a key."""
    words = [*options(), *more, "--json", "--", sys.executable, "train.py"]
    document = dict(sealfs("measure", *words, env={"PATH": path}).json)
    assert document.pop("commands")[-1][0] == "gramine-sgx-sign"
    return document


needs_launcher = pytest.mark.skipif(
    not (Path(__file__).parents[2] / (LAUNCHER.replace(".", "/") + ".py")).exists(),
    reason="the launcher is not in this tree",
)


@needs_launcher
def test_same_inputs_same_measurement(sealfs: Sealfs, project: Path, tools: str) -> None:
    first = measured(sealfs, tools)
    assert len(str(first["mrenclave"])) == 64
    assert measured(sealfs, tools) == first
    assert measured(sealfs, tools, "--again") == first
    assert 20 < int(str(first["trusted_files"])) < 3000
    signed = tomllib.loads((project / "enclave" / "workload.manifest.sgx").read_text())
    uris = {entry["uri"] for entry in signed["sgx"]["trusted_files"] if isinstance(entry, dict)}
    assert {f"file:{project}/train.py", f"file:{project}/model.py"} <= uris
    assert any(uri.startswith("file:pycache/") and uri.endswith(".pyc") for uri in uris)
    next((project / "enclave" / "pycache").rglob("*.pyc")).write_bytes(b"changed")
    ended = sealfs("measure", *options(), "--again", "--", sys.executable, "train.py", code=12, env={"PATH": tools})
    assert "1 files differ from what was collected" in ended.stderr


@needs_launcher
def test_whatever_changes_changes_it(sealfs: Sealfs, project: Path, tools: str) -> None:
    seen = [measured(sealfs, tools)["mrenclave"]]
    (project / "model.py").write_text("layers = 4\n")
    ended = sealfs("measure", *options(), "--again", "--", sys.executable, "train.py", code=12, env={"PATH": tools})
    assert "differ from what was collected" in ended.stderr
    seen.append(measured(sealfs, tools)["mrenclave"])
    seen.append(measured(sealfs, tools, "--threads", "2")["mrenclave"])
    seen.append(measured(sealfs, tools, "--enclave-size", "8G")["mrenclave"])
    words = [*options(), "--json", "--", sys.executable, "train.py", "--epochs", "2"]
    seen.append(sealfs("measure", *words, env={"PATH": tools}).json["mrenclave"])
    assert len(set(seen)) == len(seen)


@needs_launcher
def test_without_tools_it_says_so(sealfs: Sealfs, project: Path) -> None:
    words = [*options(), "--", sys.executable, "train.py"]
    ended = sealfs("measure", *words, code=12, env={"PATH": "/usr/bin:/bin"})
    assert "gramine-manifest is not on PATH, so nothing is built and MRENCLAVE is not known" in ended.stderr
    assert "gramine-sgx-sign --manifest workload.manifest --output workload.manifest.sgx" in ended.stderr
    assert "MRENCLAVE" not in ended.text
    assert (project / "enclave" / "workload.manifest.template").exists()


@needs_launcher
def test_one_measurement_for_all_contracts(sealfs: Sealfs, project: Path, tools: str) -> None:
    first = measured(sealfs, tools, "--contract")
    signed = tomllib.loads((project / "enclave" / "workload.manifest.sgx").read_text())
    assert signed["loader"]["argv"][1:4] == ["-m", "sealfs.tasks.inside", "--from"]
    uris = {entry["uri"] for entry in signed["sgx"]["trusted_files"] if isinstance(entry, dict)}
    for module in ("sealfs/contracts/lock.py", "sealfs/broker/client.py", "Crypto/Protocol/SecretSharing.py"):
        assert any(module.replace(".py", "") in uri for uri in uris), module
    words = [*options(), "--contract", "--again", "--json", "--", "another", "command"]
    assert sealfs("measure", *words, env={"PATH": tools}).json["mrenclave"] == first["mrenclave"]
    assert measured(sealfs, tools)["mrenclave"] != first["mrenclave"]
    assert measured(sealfs, tools, "--contract", "--keys", "runner")["mrenclave"] != first["mrenclave"]
    sealfs("measure", *options("scone"), "--contract", "--", "true", code=2)
    sealfs(
        "measure", *options(), "--contract", "--out", "/store:/out", "--out-recipient", "x", "--", "true", code=2
    )


@needs_launcher
def test_native_runs_are_measured_for_contracts_only(sealfs: Sealfs, project: Path) -> None:
    """What is printed is what a runner signs for; `sealfs task run --runner` compares the files."""
    words = [*options("native"), "--contract", "--", sys.executable, "train.py"]
    said = sealfs("measure", *words)
    manifest = (project / "enclave" / MANIFEST).read_bytes()
    assert said.text == f"manifest SHA-256 {hashlib.sha256(manifest).hexdigest()}\n"
    assert {f"{project}/train.py", f"{project}/model.py"} <= set(json.loads(manifest)["files"])
    assert (
        sealfs("measure", *words[:-3], "--again", "--json", *words[-3:]).json["manifest"] == said.text.split()[-1]
    )
    assert "has no enclave" in sealfs("measure", *options("native"), "--", "true", code=2).complaint


@needs_launcher
def test_failing_trial(sealfs: Sealfs, project: Path, tools: str) -> None:
    (project / "train.py").write_text("raise SystemExit(4)")
    words = [*options(), "--", sys.executable, "train.py"]
    ended = sealfs("measure", *words, code=12, env={"PATH": tools})
    assert "failed with exit code 4" in ended.stderr
    assert not (project / "enclave" / "collected.json").exists()
    sealfs("measure", *options(), "--trial", "true", "--", "train.py", env={"PATH": tools})


def test_refused(sealfs: Sealfs, project: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    sealfs("measure", *options("native"), "--", "touch", ran, code=2)
    data = ["--data", f"{tmp_path}/one:/one", "--data", f"{tmp_path}/two:/two"]
    sealfs("measure", *options(), *data, "--", "touch", ran, code=2)
    signer = sealfs.identity_path.with_name("identity.pub")
    ended = sealfs("measure", *options(), *data, "--signer", f"/one={signer}", "--", "touch", ran, code=2)
    assert "--signer /two=KEY" in ended.stderr
    sealfs("measure", *options(), "--out", f"{tmp_path}/store:/out", "--", "touch", ran, code=2)
    sealfs("measure", *options(), "--enclave-size", "lots", "--", "touch", ran, code=2)
    sealfs("measure", "--executor", "gramine-sgx", "--", "touch", ran, code=2)
    assert not ran.exists()


@needs_launcher
@pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="there is no /dev/fuse")
def test_run_starts_what_was_measured_and_nothing_else(
    sealfs: Sealfs, project: Path, tools: str, tmp_path: Path
) -> None:
    """The host's part: ciphertext in, identity on standard input, the exit code out."""
    source, store, results = tmp_path / "source", tmp_path / "store", tmp_path / "results"
    source.mkdir()
    (source / "secret").write_text("plaintext")
    sealfs("push", source, store)
    public = sealfs.identity_path.with_name("identity.pub")
    job = [*options(), "--data", f"{store}:/data", "--out", f"{results}:{tmp_path / 'out'}",
           "--out-recipient", public, "--signer", public]  # fmt: skip
    command = ["--", "python", "train.py"]
    sealfs("measure", *job, "--trial", f"{sys.executable} train.py", *command, env={"PATH": tools})
    ended = sealfs("run", *job, *command, env={"PATH": tools}, code=17)
    said = json.loads(ended.lines[-1])
    assert said["stdin"].startswith("sealfs-identity-1:")
    assert said["argv"][-2:] == ["--", "train.py"]
    assert said["ciphertext"] == {"0": sorted(["head", "indexes", "keyrings", "packs", "snapshots"])}
    assert (results / "came-from-the-enclave").exists()
    assert "Its keys come from this host" in ended.stderr
    other = sealfs("run", *job, "--", "python", "other.py", env={"PATH": tools}, code=12)
    assert "was made for another run: its workload.manifest.template differs" in other.stderr
    dry = sealfs("run", *job, "--dry-run", *command, env={"PATH": tools})
    assert dry.lines[-2:] == [f"cd {project / 'enclave'}", "gramine-sgx workload"]


@needs_launcher
def test_a_broker_is_told_what_was_measured(sealfs: Sealfs, project: Path, tools: str, tmp_path: Path) -> None:
    command = ["--", sys.executable, "train.py"]
    with running(tmp_path / "broker", load_identity(sealfs.identity_path)) as broker:
        sgx = sealfs("measure", *options(), "--register", broker.address, *command, env={"PATH": tools})
        (manifest,) = broker.member().manifests()
        assert manifest["measurement"] == sgx.lines[-1].removeprefix("MRENCLAVE ")
        assert f"it may serve {manifest['level']}" in sgx.stderr
        assert (manifest["level"] == "L5") == (not manifest["findings"])
        again = [*options(), "--again", "--register", broker.address, *command]
        sealfs("measure", *again, env={"PATH": tools})
        assert len(broker.member().manifests()) == 1


@needs_launcher
@pytest.mark.slow
def test_results_to_an_object_store(sealfs: Sealfs, project: Path, tools: str, tmp_path: Path) -> None:
    """The enclave seals to a folder of the host, and the host, which has the credentials, takes it on."""
    (project / "model").mkdir()
    (project / "model" / "weights").write_text("trained")
    sealfs("push", project / "model", tmp_path / "sealed")
    copy = f"import shutil; shutil.copytree({str(tmp_path / 'sealed')!r}, 'results', dirs_exist_ok=True)"
    (tmp_path / "tools" / "gramine-sgx").write_text(f"#!{sys.executable}\n{copy}")
    public = sealfs.identity_path.with_name("identity.pub")
    with moto_server() as server:
        server.create_bucket("bucket")
        env = {"PATH": tools, **server.environment()}
        job = [*options(), "--out", f"s3://bucket/results:{tmp_path / 'out'}", "--out-recipient", public]
        command = ["--", "python", "train.py"]
        sealfs("measure", *job, "--trial", f"{sys.executable} train.py", *command, env=env)
        sealfs("run", *job, *command, env=env)
        assert sealfs("cat", "s3://bucket/results", "weights", env=env).text == "trained"
        assert not list((project / "enclave").glob("results*")), "left behind although it was copied"
        taken = sealfs("run", *job, *command, env=env, code=2)
        assert "a dataset at s3://bucket/results already" in taken.stderr
        env["AWS_SECRET_ACCESS_KEY"] = ""
        env["AWS_ACCESS_KEY_ID"] = ""
        without = sealfs("run", *job, *command, env=env, code=7)
        assert "credentials" in without.stderr.lower()
    assert not list((project / "enclave").glob("results*"))


def test_lint(sealfs: Sealfs, tmp_path: Path) -> None:
    path = tmp_path / "manifest"
    path.write_text('fs.root.type = "tmpfs"\nsgx.remote_attestation = "dcap"\nsgx.debug = true\n')
    ended = sealfs("lint", path, code=1)
    assert ended.lines[-1] == f"{path}:3: error: sgx.debug: a debug enclave's memory can be read by the host"
    assert "standard output and error" in ended.lines[0]
    assert "may serve datasets that demand L2 at most" in ended.stderr
    assert sealfs("lint", path, "--json", code=1).json[-1]["line"] == 3
    path.write_text('fs.root.type = "tmpfs"\n')
    sealfs("lint", path)
    sealfs("lint", path, "--fail-on", "warning", code=1)
    sealfs("lint", tmp_path / "missing", code=9)


with_gramine = pytest.mark.skipif(shutil.which("gramine-manifest") is None, reason="no gramine-manifest on PATH")


@with_gramine
@needs_launcher
def test_with_gramine_itself(sealfs: Sealfs, project: Path) -> None:
    """Its tools take what is generated, and gramine-direct runs it, with modules that need not be compiled."""
    (project / "train.py").write_text("import json, os\nprint(json.__cached__, os.path.exists(json.__cached__))\n")
    words = [*options("gramine-direct"), "--", sys.executable, "train.py"]
    sealfs("measure", *words)
    found, exists = sealfs("run", *words).lines[-1].split()
    assert found.startswith("/pycache/")
    assert exists == "True"


@with_gramine
@needs_launcher
@pytest.mark.slow
def test_signed_by_gramine_itself(sealfs: Sealfs, project: Path) -> None:
    """MRENCLAVE, as its tools compute it: the same for the same inputs, whichever key signs, and no other's."""
    path = os.environ["PATH"]
    first = measured(sealfs, path)
    assert len(bytes.fromhex(str(first["mrenclave"]))) == 32
    key = sealfs.home / "config" / "gramine" / "enclave-key.pem"
    key.unlink()
    assert measured(sealfs, path) == first
    assert measured(sealfs, path, "--again") == first
    assert key.exists()
    printed = sealfs("measure", *options(), "--again", "--", sys.executable, "train.py").lines[-1]
    assert printed == f"MRENCLAVE {first['mrenclave']}"
    (project / "model.py").write_text("layers = 4\n")
    assert measured(sealfs, path)["mrenclave"] != first["mrenclave"]
