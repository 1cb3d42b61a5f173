"""How a connection logs in: the two callbacks nats-py asks at every connect.

A creds file is read anew each time, so a credential that was replaced on disk is used from the next connect
on.
"""

import base64
import pathlib
from typing import Any

from paddock.bus import credentials


def callbacks(creds: str | pathlib.Path) -> dict[str, Any]:
    """The options by which nats-py logs in with the text of a creds file, or with the file at a path.

    nats-py asks for the signature first and for the JWT right after. Both come of one reading, so a file
    replaced in between never gives the JWT of one key with the signature of another.
    """
    jwt = b""

    def signature(nonce: str) -> bytes:
        nonlocal jwt
        text = creds if isinstance(creds, str) else creds.read_text(encoding="utf-8")
        token, seed = credentials.parse_creds(text)
        jwt = token.encode()
        return base64.b64encode(credentials.KeyPair(seed).sign(nonce.encode()))

    return {"signature_cb": signature, "user_jwt_cb": lambda: jwt}
