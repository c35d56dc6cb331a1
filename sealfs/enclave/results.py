"""A script's results sealed by its own process: for enclaves, where nobody else may see them.

The path becomes a folder of the enclave's memory: the manifest's root is a tmpfs.

Threading: the script has the main thread; the sealer brings its own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sealfs.enclave.output import OutputSealer, sealed_to_the_end
from sealfs.errors import LocalIOError
from sealfs.keys import Recipient, Signer
from sealfs.placement import Output
from sealfs.store.address import open_store


@contextmanager
def sealed_results(output: Output, level: str | None = None) -> Iterator[Signer]:
    """Run a script in the block, and seal what it writes, to the last snapshot however it ends.

    Args:
        output: Where to.
        level: What the results are stamped with, see `Snapshot.level`.

    Yields:
        Who signs the results.

    Raises:
        SystemExit: As the script.
        SealfsError: The results could not all be sealed.
    """
    recipients = [Recipient.parse(text) for text in output.recipients]
    folder, state = Path(output.path), Path(tempfile.mkdtemp(prefix="sealfs-state-"))
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise LocalIOError(
            f"cannot make {folder}: {error.strerror}", "choose another path for the results"
        ) from None
    with closing(open_store(output.address)) as store:
        # Gramine has neither hard links nor flock, and no lock of an enclave excludes its host: the folder is this
        # run's own, and who writes there, too, destroys results, but can sign none.
        single_writer = not store.has_conditional_writes()
        sealer = OutputSealer(
            folder, store, recipients, state, interval=output.interval, single_writer=single_writer, level=level
        )
        sealer.start()
        with sealed_to_the_end(sealer):
            yield sealer.signer
