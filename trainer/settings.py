"""Where the settings of a run come from: a TOML file, `--set key=value`, options of the command line, or code."""

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from pipeline.errors import UserError
from trainer.config import Config

_STORAGE = "storage"
SHOW = "`strive-train config` lists every setting with its meaning"


def build(
    kind: type[Config],
    *,
    base: Mapping[str, Any] | None = None,
    file: Path | None = None,
    sets: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
) -> Config:
    """Settings from all places: defaults, below the TOML file, below `--set` and the options of the command line.

    Args:
        kind: RunConfig or SftConfig.
        base: defaults that the program adds.
        file: TOML with top-level keys; its table [storage] says how the store is reached and is no setting.
        sets: texts "key=value"; a list is written as in TOML: "betas=[0.9, 0.95]".
        options: values by name; None means that the option was not given.

    Raises:
        UserError: unreadable file, unknown key, wrong value, or a key given by an option and by `--set`.
    """
    values = {name: value for name, value in (read_toml(file) if file else {}).items() if name != _STORAGE}
    given = {name: value for name, value in (options or {}).items() if value is not None}
    assigned = dict(parse_assignment(text) for text in sets)
    for name in assigned.keys() & given.keys():
        raise UserError(f"--set {name}", "is given by its own option too", "keep one of them")
    try:
        return kind.model_validate({**(base or {}), **values, **given, **assigned})
    except ValidationError as error:
        raise user_error(error, kind) from error


def storage_of(file: Path) -> Any:
    """The table [storage] of a TOML file of settings: secrets, which no resolved setting may hold. Raises UserError."""
    return read_toml(file).get(_STORAGE, {})


def read_toml(file: Path) -> dict[str, Any]:
    """The keys of a TOML file. Raises UserError when it is absent or not TOML."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            str(file), f"expected a TOML file ({error.strerror})", "check the path given as --config"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(str(file), f"is not TOML ({error})", "write it as `strive-train config` prints it") from error


def parse_assignment(text: str) -> tuple[str, Any]:
    """("key", value) of "key=value": a list is read as TOML, all else stays text, which the field's type then reads.

    Raises:
        UserError: no "=", no key, or a list that is not TOML.
    """
    name, equals, value = text.partition("=")
    name, value = name.strip(), value.strip()
    if not equals or not name:
        raise UserError(f"--set {text!r}", "expected key=value", SHOW)
    if not value.startswith("["):
        return name, value
    try:
        return name, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"--set {text!r}", "expected a list like [0.9, 0.99]", SHOW) from error


def user_error(error: ValidationError, kind: type[BaseModel]) -> UserError:
    """The first problem of a validation as one line: field, value, expectation."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "missing":
        return UserError(f"setting {field}", f"is needed and was not given{more}", SHOW)
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(field, kind.model_fields, n=1)
        hint = f"no such setting, did you mean {near[0]}?" if near else "no such setting"
        return UserError(f"setting {field}", f"{hint}{more}", SHOW)
    if first["type"] == "value_error":
        return UserError("settings", f"{first['ctx']['error']}{more}", SHOW)
    message = first["msg"].removeprefix("Input ")
    return UserError(f"setting {field}={first['input']}", f"{message}{more}", SHOW)
