"""The linter finds each way in that a manifest can leave open, and says where."""

from __future__ import annotations

import json

import pytest

from sealfs.attestation.levels import Level
from sealfs.enclave.lint import Finding, lint, worst
from sealfs.enclave.registration import register
from sealfs.errors import UsageError

CLEAN = """\
loader.entrypoint = "file:/usr/lib/gramine/libsysdb.so"
libos.entrypoint = "/usr/bin/python3"
loader.log_level = "error"
fs.root.type = "tmpfs"
fs.mounts = [
  { path = "/usr", uri = "file:/usr" },
]
sgx.remote_attestation = "dcap"
sgx.trusted_files = [
  "file:/usr/lib/x86_64-linux-gnu/gramine/runtime/glibc/",
  { uri = "file:/usr/bin/python3", sha256 = "00" },
]
loader.argv = ["python3", "-m", "sealfs.enclave.launch", "--out", "file:///results:/out", "--out-log", "log",
  "--", "train.py"]
"""


def found(text: str, what: str) -> Finding:
    matching = [finding for finding in lint(text) if finding.what == what]
    assert len(matching) == 1, lint(text)
    return matching[0]


def test_names_that_the_host_explains() -> None:
    """Known by its key, a broker can have a name at every level."""
    text = CLEAN + "sys.enable_extra_runtime_domain_names_conf = true\n"
    finding = found(text, "sys.enable_extra_runtime_domain_names_conf")
    assert (finding.level, finding.line) == ("note", len(text.splitlines()))
    assert "known by its TLS key" in finding.why
    assert register("ab" * 32, lint(text)).level is Level.L5


def test_nothing_to_say_about_a_clean_one() -> None:
    assert lint(CLEAN) == []
    assert worst([]) is None


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("loader.insecure__use_cmdline_argv = true", "loader.insecure__use_cmdline_argv"),
        ("loader.insecure__use_host_env = true", "loader.insecure__use_host_env"),
        ("loader.insecure__disable_aslr = true", "loader.insecure__disable_aslr"),
        ("sys.insecure__allow_eventfd = true", "sys.insecure__allow_eventfd"),
        ('fs.insecure__keys.default = "ffeeddccbbaa99887766554433221100"', "fs.insecure__keys"),
        ("sgx.insecure__rpc_thread_num = 4", "sgx.insecure__rpc_thread_num"),
        ("sgx.insecure__of_the_future = true", "sgx.insecure__of_the_future"),
        ("loader.env.LD_PRELOAD = { passthrough = true }", "loader.env.LD_PRELOAD"),
        ("loader.env.COLUMNS = { passthrough = true }", "loader.env.COLUMNS"),
        ('loader.env.AWS_SECRET_ACCESS_KEY = "abc"', "loader.env.AWS_SECRET_ACCESS_KEY"),
        ('loader.argv_src_file = "file:args"', "loader.argv_src_file"),
        ("sgx.debug = true", "sgx.debug"),
        ('sgx.profile.enable = "all"', "sgx.profile.enable"),
        ('sgx.file_check_policy = "allow_all_but_log"', "sgx.file_check_policy"),
        ('sgx.allowed_files = ["file:/srv/results/"]', "file:/srv/results/"),
        ('loader.log_file = "log"', "loader.log_file"),
    ],
)
def test_errors(line: str, what: str) -> None:
    """Each with its line, also after a comment and a blank line that name the same key."""
    text = f"{CLEAN}\n# {line}\n{line}\n"
    finding = found(text, what)
    assert finding.level == "error"
    assert text.splitlines()[finding.line - 1] == line
    assert len(finding.why) > 15


@pytest.mark.parametrize("line", ["loader.insecure__use_cmdline_argv = false", "sgx.insecure__rpc_thread_num = 0"])
def test_switched_off_is_fine(line: str) -> None:
    assert lint(f"{CLEAN}\n{line}\n") == []


def test_log_level() -> None:
    text = CLEAN.replace('"error"', '"trace"')
    assert found(text, "loader.log_level").line == 3


def mounts(line: str) -> str:
    return CLEAN.replace('  { path = "/usr", uri = "file:/usr" },', line)


@pytest.mark.parametrize(
    ("line", "what", "level"),
    [
        (
            '{ type = "untrusted_shm", path = "/dev/shm", uri = "dev:/dev/shm" }',
            "/dev/shm (untrusted_shm)",
            "error",
        ),
        ('{ type = "encrypted", path = "/out", uri = "file:out" }', "/out (encrypted)", "warning"),
        ('{ path = "/", uri = "file:/" }', "/", "warning"),
        ('{ path = "/dev/sda", uri = "dev:/dev/sda" }', "dev:/dev/sda", "warning"),
    ],
)
def test_mounts(line: str, what: str, level: str) -> None:
    finding = found(mounts(f"  {line},"), what)
    assert (finding.level, finding.line) == (level, 6)


def test_root_and_attestation_that_are_not_there() -> None:
    text = CLEAN.replace('fs.root.type = "tmpfs"\n', "").replace('sgx.remote_attestation = "dcap"\n', "")
    assert {(f.what, f.level, f.line) for f in lint(text)} == {
        ("fs.root", "warning", 0),
        ("sgx.remote_attestation", "warning", 0),
    }


def test_allowed_folder_over_trusted_code() -> None:
    text = CLEAN + 'sgx.allowed_files = ["file:/usr/"]\n'
    assert any("trusted files lie there" in finding.why for finding in lint(text))


def test_ciphertext_is_meant_to_be_let_in_but_nothing_beside_it() -> None:
    text = CLEAN + 'sgx.allowed_files = ["file:ciphertext/0/", "file:ciphertext2/"]\n'
    assert {(f.what, f.level) for f in lint(text)} == {
        ("file:ciphertext/0/", "note"),
        ("file:ciphertext2/", "error"),
    }


@pytest.mark.parametrize(
    "uri", ["file:ciphertext/../", "file:ciphertext/../lib/", "file:ciphertext/0/../../lib/x.py"]
)
def test_what_only_seems_to_be_ciphertext(uri: str) -> None:
    assert found(f'{CLEAN}sgx.allowed_files = ["{uri}"]\n', uri).level == "error"


CIPHERTEXT = mounts(
    '  { path = "/ciphertext/0", uri = "file:ciphertext/0" },\n  { path = "/usr", uri = "file:/usr" },'
)
CIPHERTEXT += 'sgx.allowed_files = ["file:ciphertext/0/"]\n'


def test_where_ciphertext_is_looked_for() -> None:
    assert {finding.level for finding in lint(CIPHERTEXT)} == {"note"}


@pytest.mark.parametrize(
    "mount",
    [
        '{ path = "/usr/lib/python3", uri = "file:ciphertext/0" }',
        '{ path = "/usr/lib/python3", uri = "file:ciphertext/0/packs" }',
        '{ path = "/usr/lib/python3", uri = "file:./x/../ciphertext" }',
        '{ path = "/work", uri = "file:" }',
        '{ path = "/work", uri = "file:." }',
        '{ path = "/ciphertext/../lib", uri = "file:ciphertext/0" }',
    ],
)
def test_a_folder_that_the_host_writes_in_the_place_of_code(mount: str) -> None:
    text = CIPHERTEXT.replace("fs.mounts = [", f"fs.mounts = [\n  {mount},")
    (finding,) = [finding for finding in lint(text) if finding.level == "error"]
    assert "the host writes what is seen at" in finding.why
    assert text.splitlines()[finding.line - 1] == f"  {mount},"


@pytest.mark.parametrize(
    "line",
    [
        'loader.env.PYTHONPATH = "/usr/lib/python3:/ciphertext/0"',
        'loader.env.LD_PRELOAD = "/ciphertext/0/packs/x.so"',
        'loader.env.PYTHONPATH = { value = "/ciphertext/0" }',
        'loader.env.LD_LIBRARY_PATH = "/usr/lib/../../ciphertext/0"',
        'fs.start_dir = "/ciphertext/0"',
    ],
)
def test_settings_that_lead_to_what_the_host_writes(line: str) -> None:
    finding = found(f"{line}\n{CIPHERTEXT}", line.partition(" ")[0])
    assert (finding.level, finding.line) == ("error", 1)
    assert finding.why.startswith("leads to where the host writes")


@pytest.mark.parametrize(
    ("program", "level"),
    [
        ("train.py", "note"),
        ("/ciphertext/0/train.py", "error"),
        ("../ciphertext/0/train.py", "error"),
        ("//ciphertext/0/train.py", "error"),
    ],
)
def test_a_program_that_the_host_writes(program: str, level: str) -> None:
    text = CIPHERTEXT.replace('"train.py"', f'"{program}"')
    text = text.replace('"--out",', '"--data", "file:///ciphertext/0:/data", "--out",')
    assert worst([f for f in lint(text) if not f.what.startswith("file:///ciphertext/0:")]) == level
    argv = f'loader.argv = ["python3", "{program}"]\n'
    assert worst(lint(CIPHERTEXT[: CIPHERTEXT.index("loader.argv")] + argv + CIPHERTEXT.splitlines()[-1])) == level


def test_the_options_of_the_launcher_in_their_other_form() -> None:
    text = CLEAN.replace('"--out",', '"--identity-fd=0", "--data=s3://x/scans:/data", "--out",')
    assert {(f.what, f.level) for f in lint(text)} == {
        ("--identity-fd", "warning"),
        ("s3://x/scans:/data", "warning"),
    }


def test_trusted_folders_and_keys() -> None:
    text = CLEAN.replace("  { uri", '  "file:/opt/venv/",\n  "file:/etc/sealfs/identity",\n  { uri')
    assert {(f.what, f.level) for f in lint(text)} == {
        ("file:/opt/venv/", "warning"),
        ("file:/etc/sealfs/identity", "error"),
    }


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["python3", "-m", "sealfs.enclave.launch", "--", "train.py", "--out-log"],  # the program's own
        ["python3", "train.py", "sealfs.enclave.launch", "--out-log"],
        ["sh", "-c", "cat /data", "-m", "sealfs.enclave.launch", "--out-log"],
    ],
)
def test_what_the_program_prints(argv: list[str]) -> None:
    manifest = f"{CLEAN[: CLEAN.index('loader.argv')]}loader.argv = {json.dumps(argv)}\n"
    assert found(manifest, "standard output and error").level == "note"


def test_template_is_refused() -> None:
    with pytest.raises(UsageError, match="no manifest"):
        lint("{% for file in trusted %}\n")


def test_worst() -> None:
    assert worst(lint(CLEAN + "sgx.debug = true\nsys.enable_sigterm_injection = true\n")) == "error"
