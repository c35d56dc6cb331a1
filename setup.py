"""Builds runtime/ (the reader for enclaves, C) along with the package; everything else is in pyproject.toml."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
LIBRARY = "libsealfs.so"


class BuildWithRuntime(build_py):
    """Puts libsealfs.so into sealfs/enclave; without a compiler or OpenSSL's headers it says so and goes on."""

    def run(self) -> None:
        """Build the library, then what setuptools builds."""
        self._build_library()
        super().run()

    def _build_library(self) -> None:
        folder = HERE / "runtime"
        built = folder / "build" / LIBRARY
        targets = [HERE / "sealfs" / "enclave" / LIBRARY]
        if not self.editable_mode:
            targets.append(Path(self.build_lib) / "sealfs" / "enclave" / LIBRARY)
        try:
            subprocess.run(
                ["make", "-s", "-C", folder, f"build/{LIBRARY}"], check=True, capture_output=True, text=True
            )
        except (OSError, subprocess.CalledProcessError) as error:
            reason = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[:1]
            print(
                "warning: sealfs is installed without its library for enclaves (needs make, gcc and libssl-dev): "
                + "".join(reason),
                file=sys.stderr,
            )
            for target in targets:  # what an earlier build left there may be of other sources
                target.unlink(missing_ok=True)
            return
        for target in targets:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".{LIBRARY}")  # replaced, not rewritten: a running program may map it
            shutil.copy(built, temporary)
            temporary.replace(target)


class WheelWithRuntime(bdist_wheel):
    """Tags a wheel that holds the library for this platform, though for any Python: no Python links to it."""

    def run(self) -> None:
        """Build first, for only then it is known what the wheel holds."""
        self.run_command("build")
        self.skip_build = True
        library = Path(self.get_finalized_command("build_py").build_lib) / "sealfs" / "enclave" / LIBRARY
        self.root_is_pure = not library.exists()
        self.distribution.has_ext_modules = library.exists  # what decides where a wheel's files go
        super().run()

    def get_tag(self) -> tuple[str, str, str]:
        """Return the wheel's tag: interpreter, ABI, platform."""
        platform = super().get_tag()[2]
        return ("py3", "none", "any" if self.root_is_pure else platform)


setup(cmdclass={"build_py": BuildWithRuntime, "bdist_wheel": WheelWithRuntime})
