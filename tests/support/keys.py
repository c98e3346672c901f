"""Throw-away keys of service accounts that do not exist."""

from functools import cache

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

EMAIL = "someone@project.iam.gserviceaccount.com"


@cache
def _pem() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def service_account_key() -> dict[str, str]:
    """The content of a key file; the same key in all of this process."""
    return {
        "type": "service_account",
        "project_id": "project",
        "client_email": EMAIL,
        "private_key": _pem(),
        "token_uri": "https://oauth2.googleapis.com/token",
    }
