"""Help, version, completion, colours, progress, pipes and signals: how the command behaves among others."""

from __future__ import annotations

import errno
import os
import pty
import re
import select
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import click
import pytest
from commands import BIN, PATIENCE, InProcess, Outcome, Sealfs, objects, python, wait_for

import sealfs as package
from sealfs.cli.common import note
from sealfs.cli.main import cli
from sealfs.errors import SealfsError

VERBS = cli.list_commands(click.Context(cli))


def on_terminal(
    sealfs: Sealfs, *arguments: object, typed: bytes = b"", env: dict[str, str] | None = None
) -> tuple[int, str]:
    """Run a verb with a terminal for everything; return its exit code and what was on the screen."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [BIN / "sealfs", *map(str, arguments)],
        env=sealfs.env | {"TERM": "xterm-256color", "COLUMNS": "120"},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    screen = bytearray()
    give_up = time.monotonic() + PATIENCE
    try:
        while time.monotonic() < give_up:
            if not select.select([controller], [], [], 0.2)[0]:
                continue
            try:
                piece = os.read(controller, 65536)
            except OSError as error:  # the other end is closed
                if error.errno == errno.EIO:
                    break
                raise
            screen += piece
            if typed and screen.rstrip().endswith(b":"):
                os.write(controller, typed)
                typed = b""
        return process.wait(PATIENCE), screen.decode()
    finally:
        process.kill()
        process.wait()
        os.close(controller)


def test_version(process: Sealfs) -> None:
    assert process("--version").text == process("-V").text == f"sealfs {package.__version__}\n"


def test_help_lists_verbs_and_every_exit_code(process: Sealfs) -> None:
    text = process("--help").text
    for verb in VERBS:
        assert f"  {verb} " in text

    def family(kind: type[SealfsError]) -> set[int]:
        return {kind.exit_code}.union(*map(family, kind.__subclasses__()))

    for code in family(SealfsError) | {0, 2, 130}:
        assert re.search(rf"(^| ) *{code}  ", text, re.MULTILINE), code
    assert process("-h").text == text


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_each_verb_tells_its_options(sealfs: InProcess, verb: str) -> None:
    text = sealfs(verb, "--help").text
    command = cli.get_command(click.Context(cli), verb)
    assert command is not None
    assert text.startswith(f"Usage: sealfs {verb}") or f" {verb} " in text.splitlines()[0]
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    for option in options:
        assert all(name in text for name in option.opts)
        assert option.help, f"{verb} {option.opts}: nobody says what it does"
    assert command.help
    assert text == sealfs(verb, "-h").text


@pytest.mark.parametrize("group", ["", "task", "policy", "broker"])
def test_without_a_verb_it_shows_the_help(sealfs: InProcess, group: str) -> None:
    """As it is with --help, and not as one long line."""
    words = group.split()
    outcome = sealfs(*words, code=2)
    assert outcome.text == ""
    assert outcome.stderr == sealfs(*words, "--help").text


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(sealfs: InProcess, shell: str) -> None:
    text = sealfs("completion", shell).text
    assert "_SEALFS_COMPLETE" in text
    assert f"{shell}_complete" in text


def test_bash_really_completes(process: Sealfs, tmp_path: Path) -> None:
    (tmp_path / "script").write_bytes(process("completion", "bash").stdout)

    def completed(*words: str) -> list[str]:
        line = shlex.join(("sealfs", *words))
        script = (
            f"source {tmp_path}/script; COMP_WORDS=({line}); COMP_CWORD={len(words)};"
            '_sealfs_completion sealfs; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        command = ["bash", "--norc", "-c", script]
        done = subprocess.run(command, env=process.env, stdout=subprocess.PIPE, text=True, check=True)
        return done.stdout.split()

    assert completed("mo") == ["mount"]
    assert set(completed("")) >= set(VERBS)
    assert "--cache-dir" in completed("mount", "--cache")


def test_colours_on_terminals_only(process: Sealfs, tmp_path: Path) -> None:
    code, screen = on_terminal(process, "ls", tmp_path / "nothing")
    assert code == 3
    assert "\x1b[31m" in screen
    assert "\x1b" not in process("ls", tmp_path / "nothing", code=3).stderr


def test_progress_bar_on_a_terminal(process: Sealfs, source: Path, store: Path) -> None:
    (source / "big").write_bytes(os.urandom(30 << 20))
    code, screen = on_terminal(process, "push", source, store)
    assert code == 0
    assert re.search(r"\d/31\.5 MB", screen)
    assert "pushed version 1" in screen
    (source / "big").unlink()
    assert process("push", source, store).stderr == ""  # and none in a pipe


@pytest.mark.slow
def test_asks_for_the_passphrase_on_a_terminal(process: Sealfs, pushed: Path, tmp_path: Path) -> None:
    (tmp_path / "phrase").write_text("correct horse")
    phrase = {"SEALFS_PASSPHRASE_FILE": str(tmp_path / "phrase")}
    locked = tmp_path / "locked"
    process("keygen", "-p", "-o", locked, env=phrase)
    code, screen = on_terminal(process, "ls", "-i", locked, pushed, typed=b"correct horse\n")
    assert code == 4  # unlocked, but not a recipient
    assert "is not a recipient" in screen
    assert "correct horse" not in screen
    code, screen = on_terminal(process, "ls", "-i", locked, pushed, typed=b"wrong\n")
    assert code == 4
    assert "wrong passphrase" in screen


def test_broken_pipe(process: Sealfs, source: Path, store: Path) -> None:
    for number in range(3000):
        (source / f"a file with a rather long name {number:05}").touch()
    (source / "big").write_bytes(bytes(9 << 20))
    process("push", source, store)
    for words in (f"ls -R {store}", f"ls -R --json {store}", f"cat {store} big"):
        done = subprocess.run(
            ["bash", "-c", f"sealfs {words} | head -c 10; echo ${{PIPESTATUS[0]}}"],
            env=process.env,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
        assert done.stderr == "", words
        assert done.stdout.splitlines()[-1].endswith("141"), words


@pytest.mark.parametrize("verb", ["cat {} labels.csv", "ls {}", "stat {} --json", "verify {}", "--help", "doctor"])
def test_output_that_cannot_be_written(process: Sealfs, pushed: Path, verb: str) -> None:
    done = in_bash(process, f"sealfs {verb.format(pushed)} > /dev/full")
    assert done.returncode == 9
    (line,) = [line for line in done.stderr.splitlines() if "first use of" not in line]
    assert line == (
        "sealfs: cannot write to standard output: No space left on device; make room, or write it elsewhere"
    )


def test_complaints_that_cannot_be_written_leave_the_exit_code(process: Sealfs, tmp_path: Path) -> None:
    for where in ("2> /dev/full", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"):
        assert in_bash(process, f"sealfs ls {tmp_path / 'nothing'} {where}").returncode == 3, where


def test_output_that_nobody_wants(process: Sealfs, pushed: Path) -> None:
    for where in (">&-", "<&- >&-"):
        done = in_bash(process, f"sealfs ls {pushed} {where}")
        assert (done.returncode, done.stderr) == (0, ""), where


def in_bash(process: Sealfs, line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", line], env=process.env, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def interrupted(process: Sealfs, words: tuple[object, ...], where: Path, log: Path) -> int:
    """Start a verb, interrupt it as soon as it has written something to `where`, and return its exit code."""
    running = process.start(*words, log=log)
    try:
        wait_for(lambda: running.poll() is not None or (where.exists() and any(where.rglob("*"))))
        running.send_signal(signal.SIGINT)
        return running.wait(PATIENCE)
    finally:
        running.kill()
        running.wait()


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["push", "pull"])
def test_interrupted(process: Sealfs, source: Path, store: Path, tmp_path: Path, verb: str) -> None:
    log, copy = tmp_path / "log", tmp_path / "copy"
    for megabytes in (300, 1500):  # on a busy machine it may have ended before this process gets its turn
        with (source / "big").open("wb") as file:
            file.writelines([os.urandom(1 << 20)] * megabytes)
        shutil.rmtree(copy, ignore_errors=True)
        if verb == "push":
            store = tmp_path / f"store-{megabytes}"
            code = interrupted(process, ("push", source, store), store, log)
        else:
            process("push", source, store)
            code = interrupted(process, ("pull", store, copy), copy, log)
        if code != 0:
            break
    assert code == 130, log.read_text()
    assert log.read_text().splitlines()[-1] == "sealfs: interrupted"
    assert "Traceback" not in log.read_text()
    if verb == "push":
        assert process("ls", store, code=3).complaint  # nothing half-visible
        assert "pushed version 1" in process("push", source, store).text
    else:
        assert not (copy / "big").exists()


def test_internal_errors_are_one_line_too(sealfs: InProcess, pushed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("sealfs.cli.ls_cmd.opened_at", fail)
    complaint = sealfs("ls", pushed, code=1).complaint
    assert "internal error: ZeroDivisionError: oops; SEALFS_DEBUG=1 shows where" in complaint


def test_starts_without_loading_what_it_does_not_need(process: Sealfs) -> None:
    script = """
import sys
from sealfs.cli.main import cli
print([name for name in ("boto3", "cryptography", "rich") if name in sys.modules])
"""
    done = subprocess.run(python(script), env=process.env, stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout == "[]\n"


NASTY = b"\x1b]0;owned\x07\r\nsealfs: all is well\xe2\x80\xae\xc2\x9b2J"  # title, a line of its own, direction, CSI


@pytest.fixture
def nasty(tmp_path: Path, sealfs: InProcess, source: Path, store: Path) -> Path:
    """A store with a version whose files have names that no terminal should be shown as they are."""
    sealfs("push", source, store)
    (source / os.fsdecode(NASTY)).write_text("content")
    (source / "link").symlink_to(NASTY)
    sealfs("push", source, store, "-m", os.fsdecode(NASTY))
    return store


def assert_harmless(outcome: Outcome, lines: int | None = None) -> None:
    """All that was printed are lines of printable characters."""
    text = outcome.text + outcome.stderr
    assert all(line.isprintable() for line in text.split("\n")), text
    assert "\nsealfs: all is well" not in text
    assert lines is None or len(outcome.lines) == lines, text


def test_names_move_no_cursor(sealfs: InProcess, nasty: Path, process: Sealfs) -> None:
    for verb, lines in ((["ls"], 5), (["ls", "-R"], 8), (["ls", "-l"], 5), (["diff"], 2), (["log"], 3)):
        assert_harmless(sealfs(*verb, nasty), lines)
    assert_harmless(sealfs("stat", nasty, NASTY))
    assert_harmless(process("cat", nasty, NASTY + b"-not-there", code=3))


def test_names_of_damaged_files_move_no_cursor(
    sealfs: InProcess, process: Sealfs, nasty: Path, tmp_path: Path
) -> None:
    for pack in objects(nasty, "packs"):
        data = bytearray(pack.read_bytes())
        data[-1] ^= 1
        pack.write_bytes(data)
    for words in (["verify", nasty], ["pull", nasty, tmp_path / "pulled", NASTY], ["cat", nasty, NASTY]):
        outcome = process(*words, code=5)
        assert_harmless(outcome)
        assert "owned" in outcome.text + outcome.stderr


def test_what_runs_in_the_way_of_a_damaged_file_moves_no_cursor(
    process: Sealfs, nasty: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (pack,) = objects(nasty, "packs")[1:] or objects(nasty, "packs")
    pack.write_bytes(pack.read_bytes()[:-1])
    read_it = "import os, sys; open(os.path.join(os.fsencode(sys.argv[1]), bytes.fromhex(sys.argv[2]))).read()"
    outcome = process("run", "--data", f"{nasty}:{data}", "--", *python(read_it, data, NASTY.hex()), code=None)
    assert outcome.code in {5, 85}
    assert "owned" in outcome.stderr
    assert_harmless(outcome)


def test_a_note_has_its_colour_around_it_and_none_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    note("a\x1b[1mb", fg="yellow")
    assert capsys.readouterr().err == "sealfs: a\\x1b[1mb\n"  # as for no terminal
