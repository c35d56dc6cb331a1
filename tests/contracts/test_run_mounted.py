"""A contract whose inputs are mounted: one folder of several owners, also for programs that do not call libc."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from contracts.test_run import Operator, operator
from contracts.world import World
from sealfs.contracts.terms import Input
from sealfs.enclave.attach import INTEGRITY_EXIT
from sealfs.errors import UsageError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="there is no /dev/fuse"),
]

# With an empty environment the in-process reader is not in there, as it is in no static program.
SCRIPT = b"""
import os, subprocess, sys
import helper
data, out = sys.argv[1:3]
read = [subprocess.check_output(["cat", name], cwd=data, env={}) for name in sorted(os.listdir(data))]
with open(os.path.join(out, "read"), "wb") as file:
    file.write(helper.joined(read))
print(sorted(name for name in os.environ if name.startswith(("SEALFS", "LD", "XDG"))))
"""


@pytest.fixture(autouse=True)
def nothing_stays(world: World) -> Iterator[None]:
    yield
    assert str(world.folder) not in Path("/proc/self/mounts").read_text()
    assert list((world.folder / "run").glob("out*")) == []


def with_script(world: World, script: bytes) -> Operator:
    world.script.write_bytes(script)
    base = world.contract()
    digest = hashlib.sha256(script).hexdigest()
    return operator(world, replace(base, function=replace(base.function, sha256=digest)))


def test_one_folder_of_several_owners_for_every_program(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    code = world.seal("model-co", "code", {"train.py": SCRIPT, "helper.py": b"joined = b'|'.join\n"})
    base = world.contract()
    agreed = replace(
        base,
        function=replace(base.function, code="code", sha256=None),
        inputs={**base.inputs, "code": Input(("model-co",), str(world.folder / "run" / "code"), "", code)},
    )
    cloud = operator(world, agreed)
    report = cloud.run(script=None, attach="fuse")
    assert report.code == 0, capfd.readouterr().err
    opened = cloud.opened(report.run, "bank-a")
    assert opened["read"] == "1\n2\n|4\n|10\n20\n"
    assert opened["printed.log"] == "[]\n"


def test_damage_that_the_script_swallows(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    """It would go on for an hour with half of the data, but is ended, and nothing of it leaves or stays."""
    world.damage("loans-b")
    cloud = with_script(
        world,
        b"import os, sys, time\n"
        b"open(sys.argv[2] + '/half', 'w').write('of a model')\n"
        b"for name in os.listdir(sys.argv[1]):\n"
        b"    try: open(sys.argv[1] + '/' + name).read()\n"
        b"    except OSError: time.sleep(3600)\n",
    )
    report = cloud.run(attach="fuse")
    assert (report.code, report.results) == (INTEGRITY_EXIT, {})
    said = capfd.readouterr().err
    assert "b_1" not in said  # which file, is not the host's business
    assert not list((world.folder / "results" / report.run / "model").glob("provenance"))


def test_damage_at_the_very_end(world: World) -> None:
    """The script ends at once when it meets the damage; still nothing is sealed."""
    world.damage("loans-b")
    cloud = with_script(
        world,
        b"import os, sys\n"
        b"try: [open(sys.argv[1] + '/' + name).read() for name in os.listdir(sys.argv[1])]\n"
        b"except OSError: pass\n",
    )
    report = cloud.run(attach="fuse")
    assert (report.code, report.results) == (INTEGRITY_EXIT, {})


def test_names_that_clash(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    base = world.contract()
    inputs = {name: replace(entry, prefix="") for name, entry in base.inputs.items()}
    report = operator(world, replace(base, inputs=inputs)).run(attach="fuse")
    assert report.code == UsageError.exit_code
    assert "'1' is in 'loans-a' and in 'loans-b'" in capfd.readouterr().err


def test_not_in_an_enclave(world: World) -> None:
    base = world.contract()
    agreed = replace(base, function=replace(base.function, executor="gramine-direct"))
    with pytest.raises(UsageError, match="no FUSE in an enclave"):
        operator(world, agreed).run(attach="fuse")
