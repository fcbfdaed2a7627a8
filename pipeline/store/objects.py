"""Small files of a store, wherever it lies, and what it means when an object store says no.

An object store is reached through Lance, by the options and credentials that its tables are reached by.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lance.file import LanceFileSession

from pipeline.errors import UserError
from pipeline.store.location import Location, hidden

_ABSENT = re.compile(r"Object at location .* not found")
_NO_BUCKET = re.compile(r"NoSuchBucket|ContainerNotFound|The specified bucket does not exist")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_STATUS = re.compile(r"status code: (\d{3})")
_OF_STORE = re.compile(
    r"Generic (S3|GCS|MicrosoftAzure|N/A|Config|HTTP) error|Error performing [A-Z]+ |Invalid user input: .*object store"
)
_LONG = 300


def names(location: Location) -> list[str]:
    """Paths of all files below a location, relative to it, sorted."""
    if location.local:
        folder = location.path
        return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    with reaching(location):
        return sorted(_session(location).list())


def entries(location: Location) -> list[str]:
    """Names of the folders directly below a location, sorted."""
    if location.local:
        return sorted(p.name for p in location.path.iterdir() if p.is_dir()) if location.path.is_dir() else []
    with reaching(location):
        found = _session(location).list_with_delimiter()
    return sorted(prefix.rstrip("/").rpartition("/")[2] for prefix in found.common_prefixes)


def files(location: Location) -> list[str]:
    """Names of the files directly in a location, sorted."""
    if location.local:
        folder = location.path
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_file()) if folder.is_dir() else []
    with reaching(location):
        found = _session(location).list_with_delimiter()
    return sorted(path.rpartition("/")[2] for path in found.objects)


def read(location: Location) -> bytes | None:
    """The content of a small file; None when it is not there."""
    if location.local:
        return location.path.read_bytes() if location.path.is_file() else None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "file"
        return file.read_bytes() if fetch(location, file) else None


def fetch(location: Location, file: Path) -> bool:
    """Copy a file of an object store to a local one; False when it is not there."""
    folder, name = _split(location)
    with reaching(location):
        try:
            _session(folder).download_file(name, file)
        except OSError as error:
            if not _absent(error):
                raise
            return False
    return True


def write(location: Location, content: bytes) -> None:
    """Make a file hold `content`: wholly or not at all, so that a kill never leaves half of it."""
    if location.local:
        location.path.parent.mkdir(parents=True, exist_ok=True)
        part = location.path.with_name(f".{location.name}.{os.getpid()}")
        part.write_bytes(content)
        part.replace(location.path)
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "file"
        file.write_bytes(content)
        send(file, location)


def send(file: Path, location: Location) -> None:
    """Copy a local file to an object store: wholly or not at all."""
    folder, name = _split(location)
    with reaching(location):
        _session(folder).upload_file(file, name)


def remove(location: Location) -> None:
    """Remove a file, if it is there."""
    if location.local:
        location.path.unlink(missing_ok=True)
        return
    folder, name = _split(location)
    with reaching(location):
        try:
            _session(folder).delete_file(name)
        except OSError as error:
            if not _absent(error):
                raise


def move(source: Location, target: Location) -> None:
    """Move a file or a folder: by one rename, or on an object store file by file, each there before it goes."""
    if source.local:
        target.path.parent.mkdir(parents=True, exist_ok=True)
        source.path.rename(target.path)
        return
    below = names(source)
    for old, new in [(source / name, target / name) for name in below] or [(source, target)]:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "file"
            if fetch(old, file):
                send(file, new)
                remove(old)


@contextmanager
def reaching(location: Location) -> Iterator[None]:
    """Around what speaks to an object store.

    Raises:
        UserError: it cannot be reached, refuses, or has no such bucket. A folder's errors stay as they are.
    """
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        meant = None if location.local else refusal(error, location)
        if meant is None:
            raise
        raise meant from None  # the cause's text may quote the request, signature and all


def refusal(error: BaseException, location: Location | None = None) -> UserError | None:
    """What an object store's error means; None when it is not one of an object store."""
    text = str(error)
    if not _OF_STORE.search(text):
        return None
    options = location.storage or {} if location else {}
    place = f"store {location}" if location else "object store"
    code, status = _CODE.search(text), _STATUS.search(text)
    said = code[1] if code else f"status {status[1]}" if status else ""
    server = next((value for name, value in options.items() if name.endswith("endpoint")), "its server")
    if said in ("NoSuchKey", "BlobNotFound") or (status and status[1] == "404" and not _NO_BUCKET.search(text)):
        return None  # a file of the store is gone: that is damage
    if _NO_BUCKET.search(text):
        return UserError(place, f"there is no such bucket ({said})", "create it, or check --store")
    if (status and status[1] in ("401", "403")) or said in ("AccessDenied", "InvalidAccessKeyId"):
        if "token request" in text or "credentials" in text:
            return UserError(place, "no credentials were found for it", _GIVE)
        return UserError(place, f"access is refused ({said})", _GIVE)
    if "credentials" in text or "token request" in text:
        return UserError(place, "no credentials were found for it", _GIVE)
    if "no Azure account name" in text or "Account must be specified" in text:
        return UserError(place, "the storage option azure_storage_account_name is missing", _GIVE)
    if "builder error" in text:
        expected = f"{server} is not https, which allow_http=true permits"
        return UserError(place, expected, "add allow_http to --storage")
    if "Generic Config error" in text or "Invalid user input" in text:
        about = text.partition("Generic Config error: ")[2] or text
        told = hidden(about.partition(", /")[0], options)[:_LONG]
        return UserError(place, f"its storage options do not fit ({told})", "check --storage; docs/storage.md has them")
    if "HTTP error" in text or "timed out" in text or "error sending request" in text:
        return UserError(place, f"{hidden(server)} does not answer", "check that it runs, then the same command again")
    if said:
        return UserError(place, f"its server failed ({said})", "the same command again: what was committed is kept")
    return None


_GIVE = "give them by --storage FILE, --storage-option, or the environment (docs/storage.md)"


def _absent(error: OSError) -> bool:
    """Whether an error says that a file is not there, its bucket being there."""
    return bool(_ABSENT.search(str(error))) and not _NO_BUCKET.search(str(error))


def _split(location: Location) -> tuple[Location, str]:
    """The folder that a file lies in, and its name: a session wants a base."""
    base, _, name = location.uri.rpartition("/")
    return Location(base, location.options), name


def _session(location: Location) -> Any:
    return LanceFileSession(location.uri, location.storage)
