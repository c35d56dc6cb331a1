"""Who may know whom: no module needs one that needs it, neither in the package nor in the C library."""

from __future__ import annotations

import ast
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Mapping, Set
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RUNTIME = ROOT / "runtime"


def assert_no_circle(needs: Mapping[str, Set[str]]) -> None:
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        pytest.fail("a circle: " + " <- ".join(error.args[1]))


def test_the_check_itself() -> None:
    with pytest.raises(pytest.fail.Exception, match="a circle: "):
        assert_no_circle({"a": {"c"}, "b": {"a"}, "c": {"b"}})


def imported(tree: ast.Module, modules: Set[str]) -> Set[str]:
    """Modules of the package that a module names in import statements, wherever these are."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names & modules or {node.module}
    return found & modules


def test_of_the_package() -> None:
    paths = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in (ROOT / "sealfs").rglob("*.py")
    }
    needs = {name: imported(ast.parse(path.read_text()), paths.keys()) - {name} for name, path in paths.items()}
    assert sum(map(len, needs.values())) > len(paths)
    assert_no_circle(needs)


def test_of_the_library() -> None:
    """By what the linker sees. A name that stands in for libc's is nobody's: the core calls libc, whoever it is."""
    if shutil.which("gcc") is None or shutil.which("readelf") is None:
        pytest.skip("no C compiler")
    subprocess.run(["make", "-s", "-C", RUNTIME], check=True)
    defined: dict[str, str] = {}
    used: dict[str, set[str]] = defaultdict(set)
    for path in [*(RUNTIME / "build" / "src").glob("*.o"), *(RUNTIME / "build" / "preload").glob("*.o")]:
        table = subprocess.run(["readelf", "-sW", path], check=True, capture_output=True, text=True).stdout
        for line in table.splitlines():
            match line.split():
                case [_, _, _, _, "GLOBAL", _, "UND", name]:
                    used[path.stem].add(name)
                case [_, _, _, _, "GLOBAL", "HIDDEN", _, name]:
                    defined[name] = path.stem
                case [_, _, _, _, "GLOBAL", _, _, name] if name.startswith("sealfs_"):
                    defined[name] = path.stem
    needs = {
        module: {defined[name] for name in names if name in defined} - {module} for module, names in used.items()
    }
    assert needs["hook_open"] >= {"place", "descriptors"}
    assert_no_circle(needs)
