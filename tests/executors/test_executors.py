"""Executors: found by entry point, and their files and commands as the tools behind them take them."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from sealfs.attestation.levels import Level
from sealfs.enclave.attach import LIBRARY
from sealfs.enclave.collected import Collected, LoadedFile
from sealfs.enclave.lint import lint
from sealfs.enclave.registration import register
from sealfs.errors import ExecutorError, SealfsError, UsageError
from sealfs.executors import base, gramine
from sealfs.executors.base import Executor, Job, KeyKind, find_executor
from sealfs.executors.gramine import RENDERED
from sealfs.executors.launcher import SECRETS_FD, enclave_command
from sealfs.keys import Identity, Signer
from sealfs.placement import DataMount, Output

ENCLAVES = ("gramine-direct", "gramine-sgx", "occlum", "scone")
FILES = (
    "/etc/ssl/openssl.cnf",
    "/srv/me/project/train.py",
    "/opt/venv/bin/python",
    "/opt/venv/lib/python3.11/site-packages/paddle/libpaddle.so",
    '/opt/venv/lib/quoted "name" ä',
    "/usr/lib/x86_64-linux-gnu/libz.so.1",
)
TOOLS = {
    "gramine-direct": ["gramine-direct"],
    "gramine-sgx": ["gramine-sgx"],
    "occlum": ["occlum"],
    "scone": ["docker"],
}


@pytest.fixture
def recipient() -> str:
    return str(Identity.generate().recipient)


@pytest.fixture
def signer() -> Signer:
    return Identity.generate().signer


@pytest.fixture
def job(tmp_path: Path, recipient: str, signer: Signer) -> Job:
    """Two datasets, results and a script with arguments; its folder has what was collected."""
    collected = Collected(
        files=tuple(LoadedFile(path, f"{number:064x}") for number, path in enumerate(FILES)),
        python="/opt/venv/bin/python",
        python_path="",
        library_path="/opt/python/lib",
        start_dir="/srv/me/project",
        threads=4,
        enclave_size="16G",
    )
    collected.save(tmp_path)
    return Job(
        datasets=(DataMount("s3://bucket/eyes", 3, "/data", signer), DataMount("file:///store", None, "/more")),
        output=Output("file:///results-here", "/out", (recipient,), 60.0),
        command=("python", "train.py", "--name", 'with "quotes" and $HOME'),
        enclave=tmp_path,
    )


def rendered(job: Job, name: str) -> Mapping[str, str]:
    return find_executor(name).files(job)


def manifest(job: Job) -> dict[str, Any]:
    return tomllib.loads(rendered(job, "gramine-sgx")[RENDERED])


@pytest.mark.parametrize("name", ["native", *ENCLAVES])
def test_all_are_found(name: str) -> None:
    executor = find_executor(name)
    assert executor.is_enclave == (name != "native")
    assert len(executor.notice) > 20
    assert type(find_executor(name.replace("-", "_"))) is type(executor)


@pytest.mark.parametrize(
    ("allowed", "warned"),
    [("65530\n", True), ("1048575\n", True), ("1048576\n", False), ("?", False), (None, False)],
)
def test_a_host_with_few_mappings_is_warned_of(
    allowed: str | None, warned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gramine, "_MAP_COUNT", tmp_path / "max_map_count")
    if allowed is not None:
        (tmp_path / "max_map_count").write_text(allowed)
    assert ("sysctl vm.max_map_count=1048576" in find_executor("gramine-direct").notice) == warned
    assert find_executor("gramine-direct").notice.startswith("gramine-direct is NO ENCLAVE")
    assert "max_map_count" not in find_executor("gramine-sgx").notice


def test_unknown_one_and_one_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="there is no executor 'sgx'") as caught:
        find_executor("sgx")
    assert "gramine-sgx" in caught.value.hint
    entry = EntryPoint("theirs", "no.such.module:Class", base.GROUP)
    monkeypatch.setattr(base, "entry_points", lambda group: [entry])
    with pytest.raises(ExecutorError, match="cannot be loaded"):
        find_executor("theirs")


class TheirExecutor:
    """As another package would have it."""

    notice = "theirs"
    is_enclave = False

    def check(self, job: Job) -> None:
        raise ExecutorError("not today", "try tomorrow")

    def files(self, job: Job) -> Mapping[str, str]:
        return {}

    def build(self, job: Job) -> list[list[str]]:
        return []

    def command(self, job: Job) -> list[str]:
        return ["ssh", "elsewhere", *job.command]

    def environment(self, job: Job) -> Mapping[str, str]:
        return {}


def test_others_can_add_theirs(monkeypatch: pytest.MonkeyPatch, job: Job) -> None:
    entry = EntryPoint("theirs", f"{__name__}:TheirExecutor", base.GROUP)
    monkeypatch.setattr(base, "entry_points", lambda group: [entry])
    executor: Executor = find_executor("theirs")
    assert executor.command(job)[:2] == ["ssh", "elsewhere"]


def test_native(job: Job) -> None:
    native = find_executor("native")
    assert list(native.command(replace(job, preload=False))) == list(job.command)
    command = list(native.command(job))
    assert command[1:3] == ["-m", "sealfs.enclave.launch"]
    assert command[command.index("--identity-fd") + 1] == str(SECRETS_FD)
    assert command[-5:] == ["--", *job.command]
    assert "s3://bucket/eyes@3:/data" in command
    assert "identity" not in " ".join(command).replace("--identity-fd", "")


def test_gramine_commands(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    direct, sgx = find_executor("gramine-direct"), find_executor("gramine-sgx")
    assert list(direct.command(job)) == ["gramine-direct", "workload"]
    assert list(sgx.command(job)) == ["gramine-sgx", "workload"]
    assert list(direct.build(job)) == [["gramine-manifest", "workload.manifest.template", "workload.manifest"]]
    sign = ["gramine-sgx-sign", "--manifest", "workload.manifest", "--output", "workload.manifest.sgx"]
    assert list(sgx.build(job))[1:] == [["gramine-sgx-gen-private-key"], sign]
    (tmp_path / "gramine").mkdir()
    (tmp_path / "gramine" / "enclave-key.pem").touch()
    assert list(sgx.build(job))[1:] == [sign]


def test_gramine_manifest_is_what_the_linter_wants(job: Job) -> None:
    datasets = tuple(replace(data, version=bytes(32)) for data in job.datasets)
    findings = lint(rendered(replace(job, datasets=datasets), "gramine-sgx")[RENDERED])
    assert [finding.what for finding in findings if finding.level != "note"] == ["--identity-fd"]
    assert {finding.what for finding in findings if finding.level == "note"} == {
        "file:ciphertext/0/", "file:ciphertext/1/", "file:results/", "standard output and error",
        "sys.enable_sigterm_injection",
    }  # fmt: skip


def test_linter_wants_versions_pinned(job: Job) -> None:
    text = rendered(job, "gramine-sgx")[RENDERED]
    found = {
        finding.what: finding
        for finding in lint(text)
        if "/ciphertext/" in finding.what and finding.level != "note"
    }
    assert set(found) == {"file:///ciphertext/0@3:/data", "file:///ciphertext/1:/more"}
    assert "another of its provider's datasets at /data" in found["file:///ciphertext/0@3:/data"].why
    for what, finding in found.items():
        assert what in text.splitlines()[finding.line - 1]


def test_gramine_manifest_says_what_runs(job: Job, recipient: str, signer: Signer) -> None:
    argv = manifest(job)["loader"]["argv"]
    assert argv[:3] == ["/opt/venv/bin/python", "-m", "sealfs.enclave.launch"]
    assert argv[argv.index("--identity-fd") + 1] == "0"
    assert [argv[n + 1] for n, word in enumerate(argv) if word == "--signer"] == [f"/data={signer}"]
    assert [argv[n + 1] for n, word in enumerate(argv) if word == "--data"] == [
        "file:///ciphertext/0@3:/data",
        "file:///ciphertext/1:/more",
    ]
    assert argv[argv.index("--out") :] == [
        *("--out", "file:///results:/out", "--out-recipient", recipient, "--out-interval", "60"),
        *("--", *job.command[1:]),
    ]


def test_what_the_script_prints_can_go_to_the_results(job: Job) -> None:
    assert job.output is not None
    logged = replace(job, output=replace(job.output, log="log"))
    argv = manifest(logged)["loader"]["argv"]
    assert argv[argv.index("--out-log") + 1] == "log"
    for made, expected in ((job, True), (logged, False)):
        findings = lint(rendered(made, "gramine-sgx")[RENDERED])
        assert any(finding.what == "standard output and error" for finding in findings) == expected


def test_test_keys_show_in_the_measured_arguments(job: Job) -> None:
    job = replace(job, keys="test-keys")
    argv = manifest(job)["loader"]["argv"]
    assert any(finding.what == "--keys-fd" for finding in lint(rendered(job, "gramine-sgx")[RENDERED]))
    assert argv[argv.index("--keys-fd") + 1] == "0"
    assert "--identity-fd" not in argv


def test_gramine_manifest_lets_nothing_else_in(job: Job) -> None:
    made = manifest(job)
    assert made["sgx"]["allowed_files"] == ["file:ciphertext/0/", "file:ciphertext/1/", "file:results/"]
    trusted = [entry for entry in made["sgx"]["trusted_files"] if isinstance(entry, dict)]
    assert [entry["uri"] for entry in trusted] == [f"file:{path}" for path in FILES]
    assert [int(entry["sha256"], 16) for entry in trusted] == list(range(len(FILES)))
    assert [entry for entry in made["sgx"]["trusted_files"] if isinstance(entry, str)] == [
        "file:{{ gramine.libos }}",
        "file:{{ gramine.runtimedir() }}/",
    ]
    kinds = {mount["path"]: mount.get("type", "chroot") for mount in made["fs"]["mounts"]}
    memory = dict.fromkeys(["/data", "/more", "/out", "/tmp"], "tmpfs")
    host = ["/lib", "/etc/ssl", "/srv/me", "/opt/venv", "/usr/lib", "/ciphertext/0", "/ciphertext/1", "/results"]
    assert kinds == memory | dict.fromkeys(host, "chroot")
    assert made["fs"]["root"]["type"] == "tmpfs"
    environment = made["loader"]["env"]
    assert all(isinstance(value, str) for value in environment.values())
    assert environment["LD_LIBRARY_PATH"].split(":")[:2] == ["/opt/python/lib", "/lib"]
    assert environment["LD_PRELOAD"] == str(LIBRARY)
    assert environment["MALLOC_ARENA_MAX"] == "1"
    assert environment["OMP_NUM_THREADS"] == "4"


@pytest.mark.parametrize(("keys", "asks"), [("identity", False), ("attested", True), ("runner", True)])
def test_gramine_looks_names_up_for_who_asks_brokers_only(job: Job, keys: KeyKind, asks: bool) -> None:
    made = manifest(replace(job, keys=keys))
    assert made["sys"].get("enable_extra_runtime_domain_names_conf", False) is asks


def test_gramine_takes_copies_of_compiled_modules(job: Job, tmp_path: Path) -> None:
    assert "PYTHONPYCACHEPREFIX" not in manifest(job)["loader"]["env"]
    collected = Collected.load(tmp_path)
    original, other = (LoadedFile(f"/opt/venv/lib/__pycache__/{name}.cpython-311.pyc", "ab" * 32) for name in "mn")
    copy = LoadedFile("pycache/opt/venv/lib/m.cpython-311.pyc", "cd" * 32)
    replace(collected, files=(*collected.files, original, other), compiled=(copy,)).save(tmp_path)
    made = manifest(job)
    assert made["loader"]["env"]["PYTHONPYCACHEPREFIX"] == "/pycache"
    assert {"path": "/pycache", "uri": "file:pycache"} in made["fs"]["mounts"]
    assert "file:pycache" not in "".join(made["sgx"]["allowed_files"])
    trusted = {entry["uri"]: entry["sha256"] for entry in made["sgx"]["trusted_files"] if isinstance(entry, dict)}
    assert trusted[f"file:{copy.path}"] == copy.sha256
    assert f"file:{original.path}" not in trusted
    assert f"file:{other.path}" in trusted


def test_without_results_nothing_can_be_written(job: Job) -> None:
    made = manifest(replace(job, output=None))
    assert made["sgx"]["allowed_files"] == ["file:ciphertext/0/", "file:ciphertext/1/"]
    assert made["loader"]["argv"][-4:] == ["--", *job.command[1:]]


@pytest.mark.parametrize("name", ENCLAVES)
def test_same_inputs_same_files(job: Job, name: str) -> None:
    assert rendered(job, name) == rendered(job, name)
    if name != "occlum":
        return
    other = replace(job, command=("python", "other.py"))
    assert rendered(other, name) != rendered(job, name)


@pytest.mark.parametrize("name", ENCLAVES)
def test_no_line_of_jinja_is_left(job: Job, name: str) -> None:
    for text in rendered(job, name).values():
        left = re.sub(r"\{\{ gramine\.(libos|runtimedir\(\)) \}\}", "", text)
        assert not re.search(r"\{[{%#]|[}%#]\}", left)


def test_occlum(job: Job) -> None:
    files = rendered(job, "occlum")
    made = json.loads(files["Occlum.json"])
    assert made["entry_points"] == ["/bin/sealfs-run"]
    assert made["env"]["untrusted"] == []
    assert made["metadata"]["debuggable"] is False
    host = [mount for mount in made["mount"] if mount["type"] == "hostfs"]
    assert [(mount["target"], mount["source"]) for mount in host] == [
        ("/ciphertext/0", "./ciphertext/0"), ("/ciphertext/1", "./ciphertext/1"), ("/results", "./results"),
    ]  # fmt: skip
    layers = made["mount"][0]["options"]["layers"]
    assert [layer["type"] for layer in layers] == ["sefs", "ramfs"], "the host would get the upper layer's files"
    for path in FILES:
        assert json.dumps(path) in files["bom.yaml"]
    compile(files["sealfs-run"], "sealfs-run", "exec")
    assert "sys.argv" not in files["sealfs-run"], "the host chooses these"
    occlum = find_executor("occlum")
    assert list(occlum.command(job)) == ["occlum", "run", "/bin/sealfs-run"]
    assert list(occlum.build(job))[-1] == ["occlum", "build"]


def test_scone(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEALFS_SCONE_IMAGE", "registry/training:1")
    job = replace(job, output=None)
    session = rendered(job, "scone")["session.yaml"]
    assert "tolerate: []" in session
    assert "SCONE_MODE: hw" in session
    assert "train.py" in session
    command = list(find_executor("scone").command(job))
    assert command[:3] == ["docker", "run", "--rm"]
    assert command[-1] == "registry/training:1"
    assert f"{job.enclave}/ciphertext/1:/ciphertext/1:ro" in command
    assert "/dev/sgx_enclave" in command
    assert "SCONE_CONFIG_ID=sealfs-training/training" in command


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty PATH to put tools in."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.mark.parametrize("name", ENCLAVES)
def test_missing_tools_are_named(job: Job, tools: Path, name: str) -> None:
    with pytest.raises(ExecutorError, match=f"{TOOLS[name][0]} is not on PATH"):
        find_executor(name).check(job)


@pytest.mark.parametrize("name", ENCLAVES)
def test_enclave_must_have_been_made(job: Job, tools: Path, name: str) -> None:
    for tool in TOOLS[name]:
        (tools / tool).touch(mode=0o755)
    executor = find_executor(name)
    with pytest.raises(ExecutorError, match=r"has no|is not set|for results"):
        executor.check(job)
    with pytest.raises(ExecutorError, match="no enclave was named"):
        executor.check(replace(job, enclave=None))


def test_where_results_go_in_the_end_is_the_hosts_business(job: Job) -> None:
    assert job.output is not None
    elsewhere = replace(job, output=replace(job.output, address="s3://bucket/results"))
    assert rendered(elsewhere, "gramine-sgx") == rendered(job, "gramine-sgx")


def test_results_of_a_program_that_is_no_script(job: Job) -> None:
    with pytest.raises(ExecutorError, match="can have no results"):
        rendered(replace(job, command=("/bin/train",)), "gramine-sgx")


def test_nothing_collected(job: Job, tmp_path: Path) -> None:
    (tmp_path / "collected.json").unlink()
    with pytest.raises(ExecutorError, match=r"has no collected\.json"):
        rendered(job, "gramine-sgx")


def test_an_enclave_for_contracts_says_nothing_of_any(job: Job) -> None:
    contracts = replace(job, datasets=(), output=None, command=(), contract=True)
    made = manifest(contracts)
    assert made["loader"]["argv"] == [
        *("/opt/venv/bin/python", "-m", "sealfs.tasks.inside", "--from", "/ciphertext", "/results")
    ]
    folders = {mount["path"]: mount.get("uri") for mount in made["fs"]["mounts"]}
    assert folders["/ciphertext"] == "file:ciphertext"
    assert folders["/results"] == "file:results"
    assert made["sgx"]["allowed_files"] == ["file:ciphertext/", "file:results/"]
    assert made == manifest(replace(contracts, command=("something", "else")))  # one measurement for all contracts
    assert made == manifest(replace(contracts, keys="attested"))
    rehearsed = manifest(replace(contracts, keys="runner"))  # where evidence comes from is measured
    assert rehearsed["loader"]["argv"] == [*made["loader"]["argv"], "--runner-fd", "0"]
    found = lint(rendered(replace(contracts, keys="runner"), "gramine-sgx")[RENDERED])
    assert "--runner-fd" in {finding.what for finding in found}
    assert {finding.level for finding in found} <= {"note", "warning"}
    found = lint(rendered(contracts, "gramine-sgx")[RENDERED])
    assert {finding.level for finding in found} == {"note"}
    assert register("ab" * 32, found).level is Level.L5  # what becomes of what is printed the contract says


def test_what_a_runner_signs_for_natively(job: Job, tmp_path: Path) -> None:
    """A list of what is loaded, compared before each start; other native runs need no files."""
    native = find_executor("native")
    assert native.files(job) == native.files(replace(job, contract=True, enclave=None)) == {}
    (tmp_path / "train.py").write_text("print(1)")
    Collected.here([str(tmp_path / "train.py")], 4, "16G").save(tmp_path)
    contracts = replace(job, datasets=(), output=None, command=(), contract=True, preload=False)
    listed = json.loads(native.files(contracts)[base.MANIFEST])
    digest = hashlib.sha256(b"print(1)").hexdigest()
    assert listed["files"] == {str(tmp_path / "train.py"): digest}
    assert listed["argv"][1:] == ["-m", "sealfs.tasks.inside"]
    native.check(contracts)
    (tmp_path / "train.py").write_text("print(2)")
    with pytest.raises(ExecutorError, match=r"1 files differ from what was measured, .*train\.py"):
        native.check(contracts)
    (tmp_path / "train.py").unlink()
    with pytest.raises(SealfsError, match="cannot read"):
        native.check(contracts)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("identity", ["--identity-fd", "0"]),
        ("test-keys", ["--keys-fd", "0"]),
        ("attested", ["--attested"]),
        ("runner", ["--runner-fd", "0"]),
    ],
)
def test_where_keys_come_from_is_measured(keys: KeyKind, words: list[str], job: Job) -> None:
    """A host can't have an enclave take its keys instead of a broker's: that is another command line."""
    asked = f"owner@https://127.0.0.1:8600#sha256:{'0' * 64}"
    assert job.enclave
    for broker in (None, asked):
        command = list(enclave_command(replace(job, keys=keys, broker=broker), Collected.load(job.enclave)))
        launch = command.index("sealfs.enclave.launch")
        assert command[launch + 1 : launch + 1 + len(words)] == words
        assert (asked in command) == (broker is not None)


def test_memory_for_decrypted_data(job: Job) -> None:
    """As asked for; else as much as a mount takes, but in an enclave the library's own, smaller, limit."""
    assert job.enclave
    native, collected, option = find_executor("native"), Collected.load(job.enclave), "--cache-memory"
    for asked in (replace(job, cache_memory=1 << 20), replace(job, cache_memory=0)):
        for command in (list(native.command(asked)), list(enclave_command(asked, collected))):
            assert command[command.index(option) + 1] == str(asked.cache_memory)
    command = list(native.command(job))
    assert command[command.index(option) + 1] == str(256 << 20)
    assert option not in enclave_command(job, collected)
