"""securesystemslib's envelopes and Ed25519 keys, without what its import drags in.

When boto3 is installed, `securesystemslib.signer` imports it for a signer that is not used here: a quarter of a
second at every start of every command. While it is imported boto3 is therefore said to be absent.

Threading: import time only.
"""

from __future__ import annotations

import sys

_hidden = "boto3" not in sys.modules
if _hidden:
    sys.modules["boto3"] = None  # type: ignore[assignment] # what makes an import of it fail, see importlib
try:
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import Error as DsseError
    from securesystemslib.signer import CryptoSigner, SSlibKey
finally:
    if _hidden:
        del sys.modules["boto3"]

__all__ = ["CryptoSigner", "DsseError", "Envelope", "SSlibKey"]
