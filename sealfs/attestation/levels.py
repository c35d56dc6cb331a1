"""The five levels of protection that a dataset can demand, MesaTEE's own ladder.

Threading: immutable.
"""

from __future__ import annotations

import re
from enum import IntEnum

from sealfs.errors import DocumentError


class Level(IntEnum):
    """How well an environment is protected; a higher one serves wherever a lower one is demanded."""

    L1 = 1
    L2 = 2
    L3 = 3
    L4 = 4
    L5 = 5

    def __str__(self) -> str:
        return self.name

    @classmethod
    def parse(cls, text: str) -> Level:
        """Read a level such as "L5".

        Raises:
            DocumentError: It is none.
        """
        if not re.fullmatch("L[1-5]", text):
            raise DocumentError(f"'{text[:20]}' is no level", "the levels are L1 to L5")
        return cls[text]

    @property
    def meaning(self) -> str:
        """What it takes to reach it, in one sentence."""
        return _MEANINGS[self]


_MEANINGS = {
    Level.L1: "unprotected: no evidence, for development only",
    Level.L2: "a rehearsal: an enrolled runner signs which manifest it runs, and nothing protects it",
    Level.L3: "a measured boot: an enrolled TPM signs allow-listed PCRs with our nonce",
    Level.L4: "a confidential virtual machine: TDX or SEV-SNP with an allow-listed measurement",
    Level.L5: "an SGX enclave with an allow-listed measurement, whose manifest lets nothing in or out but sealed",
}
