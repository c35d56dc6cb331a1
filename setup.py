"""Builds runtime/ (the reader for enclaves, C) along with the package; everything else is in pyproject.toml."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import setup
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
            return
        targets = [HERE / "sealfs" / "enclave"]
        if not self.editable_mode:
            targets.append(Path(self.build_lib) / "sealfs" / "enclave")
        for target in targets:
            target.mkdir(parents=True, exist_ok=True)
            temporary = target / f".{LIBRARY}"  # replaced, not rewritten: it may be mapped by a running program
            shutil.copy(built, temporary)
            temporary.replace(target / LIBRARY)


setup(cmdclass={"build_py": BuildWithRuntime})
