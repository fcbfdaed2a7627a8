"""How an object store is reached: two options of every command that has --store.

They go before the table [storage] in the settings of --config, and this before what the environment says
(AWS_ACCESS_KEY_ID and its like, which Lance reads by itself). What they hold is shared with the whole process and
handed to its workers; it is never written down.
"""

import functools
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.safetext import redacted
from pipeline.store.location import SCHEMES, hidden_option, read_options, share

_FILE, _OPTION = "--storage", "--storage-option"

StorageFile = Annotated[
    Path | None,
    typer.Option(
        _FILE,
        metavar="FILE",
        help="Of a store on an object store: TOML or JSON with its options (keys, endpoint, region); docs/storage.md.",
    ),
]
StorageOptions = Annotated[
    list[str] | None,
    typer.Option(_OPTION, metavar="KEY=VALUE", help="One such option, before those of --storage; may be repeated."),
]
_ADDED = {"storage": StorageFile, "storage_option": StorageOptions}

_AT = re.compile(rf"--store (?:'(?:{'|'.join(SCHEMES)})://[^']*'|(?:{'|'.join(SCHEMES)})://\S+)")


class Program(typer.Typer):
    """A program whose commands that have a parameter `store` take the options of an object store too."""

    def command(self, name: str | None = None, **about: Any) -> Callable[[Any], Any]:
        """As Typer's: registers a function, and leaves it as it is."""
        register = super().command(name, **about)

        def add(function: Callable[..., Any]) -> Callable[..., Any]:
            register(_with_storage(function) if "store" in inspect.signature(function).parameters else function)
            return function

        return add


def arguments() -> list[str]:
    """The words of this command as they may be written down: no value of an option that may be a secret."""
    words: list[str] = []
    for word in sys.argv[1:]:
        name, equals, value = word.partition("=")
        if words and words[-1] == _OPTION:
            words.append(hidden_option(word))
        elif name == _OPTION and equals:
            words.append(f"{name}={hidden_option(value)}")
        else:
            words.append(redacted(word))
    return words


def again(text: str) -> str:
    """A command to type next, or a message with one, with the options by which this command reached its store."""
    words, given = arguments(), []
    for place, word in enumerate(words):
        if word in (_FILE, _OPTION) and place + 1 < len(words):
            given += [word, words[place + 1]]
        elif word.startswith((f"{_FILE}=", f"{_OPTION}=")):
            given.append(word)
    return _AT.sub(lambda found: " ".join([found[0], *given]), text) if given else text


def _table_of(config: Path) -> Any:
    # Settings bring PyTorch: only a command that has some pays for it.
    from trainer.settings import storage_of

    return storage_of(config)


def _with_storage(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def command(*args: Any, storage: Path | None = None, storage_option: list[str] | None = None, **given: Any) -> Any:
        base = _table_of(given["config"]) if given.get("config") else {}
        share(read_options(storage, storage_option or [], base))
        try:
            return function(*args, **given)
        except KeyboardInterrupt:  # of itself, Typer would end the command without a word
            raise typer.Abort from None

    signature = inspect.signature(function)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for name, kind in _ADDED.items()
    ]
    shown: Any = command
    shown.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *added])
    command.__annotations__ = {**function.__annotations__, **_ADDED}
    return command
