"""Signing links to objects (v4 signatures), with a key at hand or by asking Google's IAM to sign.

`octuefs share` calls, from several threads. A link leaves, a secret that is never logged here. Google's own client
library makes the text that is signed; which credentials sign stands here. Import this module late.
"""

import re
import threading
from datetime import timedelta

import google.auth.exceptions
import urllib3
from google.auth import credentials as interfaces
from google.auth import impersonated_credentials
from google.auth.transport.requests import Request
from google.cloud import storage

from octuefs.errors import OctuefsError, PermissionRefused
from octuefs.stores.base import Access
from octuefs.stores.gcs_connect import endpoint_url, quiet_vendors
from octuefs.stores.gcs_credentials import ALL, TOKEN_CREATOR, NoCredentials, credentials, iam_refusal
from octuefs.stores.gcs_failures import failure, payer_refusal

_GOOGLE = "https://storage.googleapis.com"
_REMEDY = (
    "give --key-file with a service account's key, or --impersonate with a service account's e-mail address "
    f"(your own account needs {TOKEN_CREATOR} on it)"
)
_PATIENCE = 30
"""Seconds that a server may take to answer one who tries a link."""
_LONGEST_REFUSAL = 1 << 16

_CODE = re.compile(r"['\"]code['\"]\s*:\s*(\d+)")


class GcsSigner:
    """A LinkSigner. The links lead to STORAGE_EMULATOR_HOST where it is set, as the SDK's do."""

    def __init__(self, access: Access) -> None:
        """Find credentials that can sign.

        :raise PermissionRefused: where these cannot, with what to give instead
        """
        quiet_vendors()
        try:
            self._credentials = credentials(access, ALL)
        except NoCredentials as error:
            raise PermissionRefused(f"no Google credentials found, and some must sign the link; {_REMEDY}") from error
        self._payer = access.billing_project
        self._lock = threading.Lock()  # guards the refreshing of _credentials
        self._signs = isinstance(self._credentials, interfaces.Signing)
        self.asks = not self._signs or isinstance(self._credentials, impersonated_credentials.Credentials)
        if self._signs:
            self.account: str = self._credentials.signer_email
        elif self._has_account():
            self._token()  # which makes the account known
            self.account = self._credentials.service_account_email
        else:
            raise PermissionRefused(f"these are a user's credentials, and only service accounts sign links; {_REMEDY}")
        self._client = storage.Client(project="-", credentials=self._credentials)
        self._server = endpoint_url(None) or _GOOGLE

    def link(self, bucket: str, name: str, lifetime: timedelta) -> str:
        """Return a link to an object that lasts `lifetime`; where a project pays, for the requests by it too."""
        by_token = {} if self._signs else {"service_account_email": self.account, "access_token": self._token()}
        try:
            url: str = (
                self._client.bucket(bucket)
                .blob(name)
                .generate_signed_url(
                    version="v4",
                    expiration=lifetime,
                    api_access_endpoint=self._server,
                    credentials=self._credentials,
                    query_parameters={"userProject": self._payer} if self._payer else None,
                    **by_token,
                )
            )
        except Exception as error:
            raise self._failure(error) from error
        return url

    def check(self, link: str, subject: str) -> None:
        """Read a byte by a link, as its reader would; what keeps the server from answering says nothing of the link."""
        try:
            with urllib3.PoolManager(retries=False, timeout=_PATIENCE) as pool:
                answer = pool.request("GET", link, headers={"Range": "bytes=0-0"}, preload_content=False)
                status, content = answer.status, answer.read(_LONGEST_REFUSAL)
                answer.close()
        except (OSError, urllib3.exceptions.HTTPError):
            return
        if who_pays := payer_refusal(status, content.decode(errors="replace"), subject):
            raise who_pays
        if status in (400, 401, 403):
            raise PermissionRefused(
                f"{subject}: links to it that are signed as {self.account} are refused (HTTP {status}); this account"
                " needs storage.objects.get there, and the clock of this machine has to be right"
            )

    def _has_account(self) -> bool:
        """Say whether these are a service account's without a key, as on Compute Engine or of another identity pool."""
        return bool(getattr(self._credentials, "service_account_email", None))

    def _token(self) -> str:
        """Return a token with which IAM is asked for signatures."""
        with self._lock:
            try:
                if not self._credentials.valid:
                    self._credentials.refresh(Request())
            except Exception as error:
                raise self._failure(error) from error
            token: str = self._credentials.token
            return token

    def _failure(self, error: Exception) -> OctuefsError:
        account = getattr(self, "account", "the service account")
        subject = f"no link can be signed as {account}"
        if isinstance(error, google.auth.exceptions.TransportError):  # which is also how IAM's refusals are told
            code = _CODE.search(str(error))
            if code is not None and code[1] in ("400", "401", "403", "404"):
                return iam_refusal(int(code[1]), str(error), account, subject)
        return failure(error, subject)
