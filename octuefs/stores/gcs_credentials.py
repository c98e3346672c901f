"""Credentials for Google Cloud Storage: which ones an `Access` means, and what keeps us from them, in words.

`gcs_connect` and `gcs_signing` call, and import this module late, as google.auth takes its time. A credentials object
of google.auth leaves. No message holds anything of a key, a token, or the words of a server.
"""

import json
import os
from typing import Any

import google.auth
import google.auth.exceptions
from google.auth import impersonated_credentials
from google.oauth2 import credentials as user_credentials
from google.oauth2 import service_account

from octuefs.errors import PermissionRefused
from octuefs.stores.base import Access

_SCOPES = "https://www.googleapis.com/auth/"
READING = f"{_SCOPES}devstorage.read_only"
WRITING = f"{_SCOPES}devstorage.read_write"
ALL = f"{_SCOPES}cloud-platform"
"""What IAM asks for before it lets one account act, or sign, as another."""

TOKEN_CREATOR = "the role Service Account Token Creator (roles/iam.serviceAccountTokenCreator)"
_ENABLE_IAM = (
    "the IAM Service Account Credentials API is not enabled in the project; "
    "run `gcloud services enable iamcredentials.googleapis.com`"
)

_NO_CREDENTIALS = (
    "no Google credentials found; run `gcloud auth application-default login`, "
    "set GOOGLE_APPLICATION_CREDENTIALS, or use --anonymous for a public bucket"
)


class NoCredentials(PermissionRefused):
    """There are no credentials at all."""


def credentials(access: Access, scope: str) -> Any:
    """Return the credentials that `access` means, for `scope`; never starts a browser, and rarely asks the network.

    Where a project pays, it is also the one that credentials name as theirs, if they name one: there is one payer.

    :raise PermissionRefused: where there are none, or they cannot be read
    """
    source = _own_credentials(access.key_file, ALL if access.impersonate else scope)
    found: Any = source
    if access.impersonate:
        make: Any = _Impersonated
        found = make(source_credentials=source, target_principal=access.impersonate, target_scopes=[scope])
    if access.billing_project and getattr(found, "quota_project_id", None):
        found = found.with_quota_project(access.billing_project)
    return found


class _Impersonated(impersonated_credentials.Credentials):
    """Impersonated credentials that say why an account may not be acted as."""

    def refresh(self, request: Any) -> None:
        """Ask for a token.

        :raise PermissionRefused: where it is refused
        :raise gcsfs.retry.HttpError: where IAM cannot answer now, so that it is asked again
        """
        parent: Any = super()
        try:
            parent.refresh(request)
        except google.auth.exceptions.RefreshError as error:
            code, text = _answer_of(error)
            if code == 429 or code >= 500:
                from gcsfs.retry import HttpError

                raise HttpError({"code": code, "message": "impersonation"}) from error
            if code:
                account: str = self._target_principal
                raise iam_refusal(code, text, account, f"cannot act as {account}") from error
            raise  # the refusal of the credentials that are to act as the account


def iam_refusal(code: int, text: str, account: str, subject: str) -> PermissionRefused:
    """Return what a refusal of IAM (an HTTP status and words, to look into only) to use an account means."""
    if "SERVICE_DISABLED" in text or "has not been used in project" in text:
        return PermissionRefused(f"{subject}: {_ENABLE_IAM}")
    if code in (400, 404):
        return PermissionRefused(f"{subject}: there is no such service account; check its e-mail address")
    return PermissionRefused(f"{subject}: the account of your credentials needs {TOKEN_CREATOR} on {account}")


def _answer_of(error: Exception) -> tuple[int, str]:
    """Return IAM's HTTP status and words; 0 where it was not IAM that answered."""
    text = error.args[1] if len(error.args) > 1 else ""
    try:
        return int(json.loads(text)["error"]["code"]), text
    except (ValueError, KeyError, TypeError):
        return 0, ""


def _own_credentials(key_file: str | None, scope: str) -> Any:
    """Return the credentials of `key_file`, the Application Default Credentials without."""
    if key_file is not None:
        return _credentials_of_file(key_file, scope)
    default: Any = google.auth.default
    try:
        return default(scopes=[scope])[0]
    except (google.auth.exceptions.DefaultCredentialsError, OSError, ValueError, AttributeError) as error:
        file = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
        if file:
            text = f"the credentials that GOOGLE_APPLICATION_CREDENTIALS names cannot be used: {file}"
            raise PermissionRefused(f"{text} ({'not usable' if os.path.exists(file) else 'no such file'})") from error
        raise NoCredentials(_NO_CREDENTIALS) from error


def _credentials_of_file(path: str, scope: str) -> Any:
    """Return the credentials in a service account's key, or in what `gcloud auth application-default login` wrote.

    A user's credentials have the scopes that were granted at that login. Other kinds (of which some name programs to
    run and servers to ask) are for GOOGLE_APPLICATION_CREDENTIALS alone.
    """
    subject = f"the key file {path} cannot be used"
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except OSError as error:
        raise PermissionRefused(f"{subject}: {os.strerror(error.errno) if error.errno else 'not readable'}") from error
    except ValueError as error:
        raise PermissionRefused(f"{subject}: it is not JSON") from error
    kind = content.get("type") if isinstance(content, dict) else None
    make: Any
    try:
        if kind == "service_account":
            make = service_account.Credentials.from_service_account_info
            return make(content, scopes=[scope])
        if kind == "authorized_user":
            make = user_credentials.Credentials.from_authorized_user_info
            return make(content)
    except Exception:  # its words may hold a part of the key, and its types are many
        raise PermissionRefused(f"{subject}: it is damaged; download a new key") from None
    raise PermissionRefused(f"{subject}: it is neither a service account's key nor a user's credentials")
