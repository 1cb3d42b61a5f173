"""Secrets at rest: encrypted with the first key of a ring, readable with every key of it.

Rotation is: put a new key first, re-encrypt at leisure, take the old one away. The ring is a file with one Fernet key a
line (0600), or `PADDOCK_SECRET_KEYS`, comma-separated, where users expect an environment variable.
"""

from collections.abc import Sequence

from cryptography import fernet

from paddock.contracts import errors


class SecretBox:
    """Encrypts and decrypts; prints as nothing."""

    def __init__(self, keys: Sequence[str]) -> None:
        """Take a key ring, newest first.

        Raises:
            errors.InvalidParams: The ring is empty or a key is malformed; the key itself is not shown.
        """
        try:
            self._ring = fernet.MultiFernet([fernet.Fernet(key) for key in keys])
        except ValueError:
            raise errors.InvalidParams(
                "cannot use the secret keys: each must be 32 url-safe base64-encoded bytes, and there must be one"
            ) from None

    def __repr__(self) -> str:
        return "SecretBox(***)"

    def seal(self, text: str) -> bytes:
        return self._ring.encrypt(text.encode())

    def open(self, sealed: bytes) -> str:
        """The text of `sealed`.

        Raises:
            errors.Internal: No key of the ring opens it: the ring lost a key that is still in use.
        """
        try:
            return self._ring.decrypt(sealed).decode()
        except fernet.InvalidToken as error:
            raise errors.Internal(detail="a stored secret opens with no key of the ring") from error


def new_key() -> str:
    return fernet.Fernet.generate_key().decode()


def parse_ring(text: str) -> list[str]:
    """Keys from a key file or variable: one a line, or separated by commas; empty lines and `#` comments are passed over."""
    lines = (line.split("#", 1)[0] for line in text.splitlines())
    return [key.strip() for line in lines for key in line.split(",") if key.strip()]
