"""securesystemslib's envelopes and Ed25519 keys, read with bounds, and without what its import drags in.

When boto3 is installed, `securesystemslib.signer` imports it for a signer that is not used here: a quarter of a
second at every start of every command. While it is imported boto3 is therefore said to be absent.

Threading: stateless but for the import itself.
"""

from __future__ import annotations

import sys

from sealfs.fields import Fields

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

__all__ = ["CryptoSigner", "DsseError", "Envelope", "SSlibKey", "read_envelope"]


def read_envelope(fields: Fields, payload_type: str, what: str) -> Envelope:
    """Read an envelope that anybody may have written; whose signatures it bears is still to be verified.

    Args:
        fields: The JSON object; malformed envelopes raise its kind of error.
        payload_type: What must be in it.
        what: Its name in errors.
    """
    if fields.text("payloadType", r"[ -~]{1,200}") != payload_type:
        raise fields.error(f"that is no {what}")
    signatures = [
        {"keyid": s.text("keyid", r"[ -~]{0,200}"), "sig": s.text("sig", r"[A-Za-z0-9+/=_-]{0,8192}")}
        for s in fields.objects("signatures", 16)
    ]
    payload = fields.text("payload", r"[A-Za-z0-9+/=_-]*")
    try:
        return Envelope.from_dict({"payload": payload, "payloadType": payload_type, "signatures": signatures})
    except (ValueError, KeyError, DsseError):
        raise fields.error(f"the {what}'s envelope is malformed") from None
