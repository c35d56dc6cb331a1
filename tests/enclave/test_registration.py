"""Which level a manifest may serve, by what the linter finds in it."""

from __future__ import annotations

import pytest

from enclave.test_lint import CLEAN
from sealfs.attestation.levels import Level
from sealfs.enclave.lint import lint
from sealfs.enclave.registration import register

MEASUREMENT = "5e" * 32


def level(*lines: str) -> Level:
    # in front: what follows a table's header belongs to the table
    return register(MEASUREMENT, lint("\n".join([*lines, CLEAN]))).level


def test_a_clean_one_serves_all() -> None:
    registered = register(MEASUREMENT, lint(CLEAN))
    assert (registered.measurement, registered.level, registered.findings) == (MEASUREMENT, Level.L5, ())


@pytest.mark.parametrize(
    "line",
    [
        "loader.insecure__use_cmdline_argv = true",
        "loader.insecure__use_host_env = true",
        "sgx.debug = true",
        'sgx.allowed_files = ["file:/tmp/"]',
        'loader.argv_src_file = "file:args"',
        'sgx.file_check_policy = "allow_all_but_log"',
        "loader.env.LD_PRELOAD.passthrough = true",
    ],
)
def test_what_gives_the_host_plaintext_or_control_is_a_rehearsal(line: str) -> None:
    assert level(line) == Level.L2


@pytest.mark.parametrize("kind", ["untrusted_shm", "encrypted"])
def test_mounts(kind: str) -> None:
    manifest = CLEAN.replace("fs.mounts = [", f'fs.mounts = [ {{ type = "{kind}", path = "/x", uri = "file:x" }},')
    expected = Level.L2 if kind == "untrusted_shm" else Level.L4
    assert register(MEASUREMENT, lint(manifest)).level == expected


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("sgx.enable_stats = true", "sgx.enable_stats"),
        ("sgx.allowed_ioctls = [ { request_code = 1 } ]", "sgx.allowed_ioctls"),
    ],
)
def test_what_else_lets_something_out(line: str, what: str) -> None:
    registered = register(MEASUREMENT, lint(f"{line}\n{CLEAN}"))
    assert registered.level == Level.L4
    assert registered.findings[0].startswith(what)


@pytest.mark.parametrize("option", ["--identity-fd", "--keys-fd"])
def test_keys_that_the_host_has(option: str) -> None:
    manifest = CLEAN.replace('"--out-log"', f'"{option}", "0", "--out-log"')
    registered = register(MEASUREMENT, lint(manifest))
    assert (registered.level, len(registered.findings)) == (Level.L4, 1)


def test_what_the_program_prints() -> None:
    registered = register(MEASUREMENT, lint(CLEAN.replace("--out-log", "--something")))
    assert registered.level == Level.L4
    assert registered.findings[0].startswith("standard output")


def test_ciphertext_in_and_out_does_no_harm() -> None:
    assert level('sgx.allowed_files = ["file:ciphertext/0/", "file:results/"]') == Level.L5
