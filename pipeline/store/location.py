"""Where a store lies: a folder of this machine, or a prefix of an object store with what it takes to reach it."""

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote, urlsplit

from pipeline.errors import UserError

SCHEMES = ("s3", "gs", "az", "abfss", "oss", "cos", "tos")
"""Object stores that Lance writes to; the first three are the ones that people mean."""

# A server that does not answer is given up after seconds, not minutes; an option of the same name goes first.
_BOUNDS = {"connect_timeout": "5s", "timeout": "30s", "client_max_retries": "3", "client_retry_timeout": "20"}
_FIRST = {"timeout": "10s", "client_max_retries": "1", "client_retry_timeout": "10"}

_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_MANGLED = re.compile(rf"({'|'.join(SCHEMES)}):/(?!/)")
_SECRET = re.compile(r"key|secret|token|password|credential|sas|service_account", re.IGNORECASE)
_USER_OF_URL = re.compile(r"//[^/@\s]+@")
_HIDDEN = "***"

# Names without the prefixes of _PREFIX. Lance ignores a name that it does not know: a typo would become a riddle.
_PREFIX = re.compile(r"^(aws|azure_storage|azure|google)_")
_NAMES = """
allow_http allow_invalid_certificates connect_timeout timeout request_timeout user_agent proxy_url
proxy_ca_certificate proxy_excludes client_max_retries client_retry_timeout download_retry_count http1_only
http2_only pool_idle_timeout pool_max_idle_per_host read_timeout root_certificate skip_signature
access_key_id secret_access_key session_token token region default_region endpoint endpoint_url endpoint_url_s3
virtual_hosted_style_request unsigned_payload checksum_algorithm disable_tagging disable_bulk_delete
copy_if_not_exists conditional_put s3_express request_payer imdsv1_fallback metadata_endpoint role_arn
role_session_name web_identity_token_file sts_endpoint container_credentials_relative_uri
container_credentials_full_uri container_authorization_token_file server_side_encryption sse_kms_key_id
sse_bucket_key_enabled sse_customer_key_base64
service_account service_account_path service_account_key application_credentials bearer_token base_url
account_name account_key client_id client_secret tenant_id authority_id authority_host sas_key sas_token
use_emulator use_fabric_endpoint msi_endpoint identity_endpoint object_id msi_resource_id federated_token_file
use_azure_cli container_name
"""
_KNOWN = frozenset(_NAMES.split())

_shared: dict[str, str] = {}


def share(options: Mapping[str, str]) -> None:
    """Storage options of this process: of every object store that it opens without naming its own."""
    _shared.clear()
    _shared.update(options)


@dataclass(frozen=True)
class Location:
    """A folder or a prefix, and below it, by `/`, whatever lies there. Made by `locate`; pickled to workers.

    `uri` is an absolute path, or scheme://bucket/prefix. `options` hold secrets: they are in no text of this object.
    """

    uri: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def local(self) -> bool:
        """Whether it is a folder of this machine."""
        return "://" not in self.uri

    @property
    def path(self) -> Path:
        """The folder.

        Raises:
            UserError: it is not one.
        """
        if not self.local:
            raise UserError(f"store {self.uri}", "this works on a store in a folder only", "name a folder as --store")
        return Path(self.uri)

    @property
    def storage(self) -> dict[str, str] | None:
        """What Lance wants to be told to reach it."""
        return None if self.local else {**_BOUNDS, **self.options}

    @property
    def impatient(self) -> "Location":
        """The same, given up sooner: for the first word with a store, when nothing is lost by it."""
        return Location(self.uri, {**_FIRST, **self.options})

    @property
    def name(self) -> str:
        """Its last part."""
        return self.uri.rpartition("/")[2]

    def __truediv__(self, name: str) -> "Location":
        return Location(f"{self.uri.rstrip('/')}/{name}", self.options)

    def __str__(self) -> str:
        return self.uri


def locate(place: "str | Path | Location", options: Mapping[str, str] | None = None) -> Location:
    """A location from what the user wrote.

    Args:
        options: storage options; default: those that the process shares. A folder takes none.

    Raises:
        UserError: a scheme that is no object store's, no bucket, secrets within the URI, or an unknown option.
    """
    if isinstance(place, Location):
        return place
    text = str(place)
    found = _URI.fullmatch(text)
    if found is None:
        if _MANGLED.match(text):
            raise UserError(
                f"store {text}", "a URI has two slashes behind its scheme", f"{text.replace(':/', '://', 1)}"
            )
        return Location(str(Path(text).absolute()))
    scheme, rest = found[1].lower(), found[2]
    if scheme == "file":
        return Location(str(Path(unquote(urlsplit(text).path)).absolute()))
    if scheme not in SCHEMES:
        raise UserError(
            f"store {hidden(text)}",
            f"{scheme}:// is not known: a folder, or {', '.join(f'{s}://' for s in SCHEMES)}",
            "choose another --store",
        )
    bucket, _, prefix = rest.rstrip("/").partition("/")
    if "@" in bucket and scheme != "abfss":
        raise UserError(
            f"store {hidden(text)}", "a URI holds no keys: it is written down", "give them by --storage FILE"
        )
    parts = prefix.split("/") if prefix else []
    if not bucket or "?" in rest or "#" in rest or not all(part.strip(".") for part in parts):
        raise UserError(f"store {hidden(text)}", f"expected {scheme}://BUCKET/PREFIX", "check --store")
    chosen = dict(_shared if options is None else options)
    if scheme in ("s3", "gs", "az", "abfss"):
        _check(chosen)
    return Location("/".join([f"{scheme}://{bucket}", *parts]), chosen)


def read_options(
    file: Path | None, pairs: Iterable[str] = (), base: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, str]:
    """Storage options from a file (TOML, or JSON when it is named so) and from texts "key=value", which go first.

    Args:
        base: what the table [storage] of a training run's settings holds; all others go before it.

    Raises:
        UserError: the file cannot be read, or something in it is not one key and one value.
    """
    found: dict[str, Any] = {}
    if file is not None:
        try:
            text = file.read_text(encoding="utf-8")
            found = json.loads(text) if file.suffix == ".json" else tomllib.loads(text)
        except OSError as error:
            raise UserError(
                f"--storage {file}", f"expected a TOML or JSON file ({error.strerror})", "check it"
            ) from error
        except (ValueError, UnicodeDecodeError):  # their texts quote the file, which holds secrets
            raise UserError(
                f"--storage {file}", "is neither TOML nor, as .json, JSON", 'lines of key = "value"'
            ) from None
        _refuse_nested(found, f"--storage {file}")
    _refuse_nested(base, "[storage] of --config")
    found = {**base, **found}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise UserError(
                f"--storage-option {hidden_option(pair)}", "expected KEY=VALUE", "aws_region=us-east-1, say"
            )
        found[name.strip()] = value.strip()
    return {k.lower(): str(v).lower() if isinstance(v, bool) else str(v) for k, v in found.items()}


def _refuse_nested(found: Any, where: str) -> None:
    if not isinstance(found, Mapping) or not all(isinstance(v, str | int | float) for v in found.values()):
        raise UserError(where, "expected keys with one value each", 'lines of key = "value"')


def hidden_option(pair: str) -> str:
    """A text "key=value" as it may be written down: without its value, if that may be a secret."""
    name, equals, value = pair.partition("=")
    return f"{name}{equals}{_HIDDEN if _SECRET.search(name) else hidden(value)}" if equals else _HIDDEN


def hidden(text: str, options: Mapping[str, str] | None = None) -> str:
    """A text without what may be secret in it: users of URLs, and the values of secret storage options."""
    text = _USER_OF_URL.sub(f"//{_HIDDEN}@", text) if "abfss://" not in text else text
    for name, value in (options or {}).items():
        if value and _SECRET.search(name):
            text = text.replace(value, _HIDDEN)
    return text


def _check(options: Mapping[str, str]) -> None:
    """Raises UserError when an option has a name that no object store knows."""
    for name in options:
        bare = _PREFIX.sub("", name.lower())
        if bare in _KNOWN:
            continue
        near = difflib.get_close_matches(bare, _KNOWN, n=1)
        prefix = name[: len(name) - len(bare)]
        raise UserError(
            f"storage option {name}",
            "no object store knows it" + (f"; did you mean {prefix}{near[0]}?" if near else ""),
            "docs/storage.md has the usual ones",
        )
