"""The stages with the settings that were last typed, read from the commands that a store remembers."""

import shlex
from collections.abc import Callable
from typing import Any

import typer

import toyworld
from pipeline.errors import UserError
from pipeline.stage import Stage
from pipeline.store import Store

_USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]


def last_command(store: Store, name: str) -> str:
    """The last command of that name that wrote to the store, as it was typed; without options when there is none."""
    typed = [command for command in store.commands() if shlex.split(command)[1:2] == [name]]
    return typed[-1] if typed else f"strive-data {name} --store {store.location}"


def commands_for(store: Store, name: str) -> list[str]:
    """What to type to have a command do its work again: of `ingest` every file, each once."""
    if name != "ingest":
        return [last_command(store, name)]
    typed = [command for command in store.commands() if shlex.split(command)[1:2] == [name]]
    return list(dict.fromkeys(typed)) or [f"strive-data ingest FILE --store {store.location}"]


def stages(store: Store) -> tuple[list[Stage], list[str]]:
    """The stages as they were last run, and why some cannot be known."""
    found: list[Stage] = []
    skipped: list[str] = []
    for name, make in _MADE.items():
        if not any(shlex.split(command)[1:2] == [name] for command in store.commands()):
            continue
        command = last_command(store, name)
        try:
            found += make(_parameters(name, command))
        except (UserError, _USAGE_ERROR) as error:
            skipped.append(f"fingerprints were not compared with the plan of `{command}`: {error}")
    return found, skipped


def _parameters(name: str, command: str) -> dict[str, Any]:
    """What the options of a command came to when it was typed."""
    from cli.data import app

    group: Any = typer.main.get_command(app)
    context = group.commands[name].make_context(name, shlex.split(command)[2:])
    parameters: dict[str, Any] = context.params
    return parameters


def _frames(given: dict[str, Any]) -> list[Stage]:
    from pipeline.frames import CacheFrames

    names = ("fps", "max_frames", "short_side", "max_pixels", "codec", "strict")
    return [CacheFrames(**{name: given[name] for name in names}, deadline_s=given["deadline"])]


def _scores(given: dict[str, Any]) -> list[Stage]:
    from pipeline.scores import EmbedFrames, ScoreFrames

    model = given["model"] or str(toyworld.CLIP)
    precision, batch = given["precision"], given["batch"]
    score = ScoreFrames(model, precision, batch, given["text"], given["combine"])
    return [EmbedFrames(model, precision, batch), score]


def _variants(given: dict[str, Any]) -> list[Stage]:
    from pipeline.variants import BuildVariants

    names = (
        "frames",
        "mix",
        "temperature",
        "bins",
        "seed",
        "spatial",
        "sampler",
        "power",
        "threshold",
        "depth",
        "resize",
    )
    return [BuildVariants(given["variants"], **{name: given[name] for name in names})]


_MADE: dict[str, Callable[[dict[str, Any]], list[Stage]]] = {
    "cache-frames": _frames,
    "score-frames": _scores,
    "build-variants": _variants,
}
