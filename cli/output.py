"""What commands print: tables for people, one JSON object for programs, one line for a mistake."""

import json
import math
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from cli.storage import again, arguments
from pipeline.errors import UserError
from pipeline.safetext import redacted, visible, visible_json
from pipeline.store.objects import refusal

USER_ERROR = 2
INTERRUPTED = 130
_SIDE_BY_SIDE = 7  # columns of a table that a terminal shows legibly
_LONG = 300  # characters of one value

# Typer brings its own copy of click along, or leans on click itself, by its version: the class is found by its child.
_USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]


def run(app: typer.Typer, program: str) -> NoReturn:
    """Run a typer app and end the process; a user's mistake ends with one line on stderr and exit code 2.

    Args:
        program: the command's name, e.g. strive-data.
    """
    try:
        code = app(standalone_mode=False, prog_name=program)
        _leave(code if isinstance(code, int) else 0)
    except UserError as error:
        _leave(USER_ERROR, str(error))
    except _USAGE_ERROR as error:
        mistake: Any = error
        path = mistake.ctx.command_path if mistake.ctx else program
        _leave(USER_ERROR, f"{redacted(mistake.format_message()).rstrip('.')}. Next: {path} --help")
    except (typer.Abort, KeyboardInterrupt):
        _leave(INTERRUPTED, "interrupted; what was finished is kept, the same command goes on from there")
    except BrokenPipeError:  # the reader, e.g. head, has had enough
        os._exit(1)
    except (OSError, ValueError, RuntimeError) as error:
        meant = refusal(error)
        if meant is None:
            raise
        _leave(USER_ERROR, str(meant))  # an object store that went away in the middle of the work


def _leave(code: int, message: str = "") -> NoReturn:
    if message:
        print("error: " + visible(again(" ".join(message.split()))), file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of native libraries may still read ahead; taking the interpreter down under them can crash it after all
    # work is done, and the command would seem to have failed.
    os._exit(code)


def print_json(data: Mapping[str, Any]) -> None:
    """One JSON object on stdout. Numbers that JSON does not know (NaN, infinity) become null."""
    if isinstance(data.get("next"), str):
        data = {**data, "next": again(data["next"])}
    print(visible_json(json.dumps(_plain(data), ensure_ascii=False)))


def print_summary(title: str, came_in: str, went_out: str, left_out: Mapping[str, int], next_command: str) -> None:
    """The short table at the end of a command.

    Args:
        left_out: how many, by reason; may be empty.
    """
    reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
    rows = {"came in": came_in, "went out": went_out, "left out": reasons or "nothing", "next": again(next_command)}
    table = Table(title=_shown(title), title_justify="left", show_header=False)
    for name, value in rows.items():
        table.add_row(name, _shown(value))
    Console().print(table)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table with a header. Numbers are aligned to the right; long texts are folded."""
    table = Table(title=_shown(title), title_justify="left")
    for place, name in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[place], int | float) for row in rows)
        table.add_column(_shown(name), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_shown(_cell(value)) for value in row))
    Console().print(table)


def print_records(title: str, columns: Sequence[str], records: Sequence[Mapping[str, Any]]) -> None:
    """Rows of a wide table: side by side while that can be read, else one block a row."""
    if len(columns) <= _SIDE_BY_SIDE:
        print_table(title, columns, [[record[name] for name in columns] for record in records])
        return
    table = Table(title=_shown(title), title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for record in records:
        for name in columns:
            text = _cell(record[name])
            table.add_row(_shown(name), _shown(text if len(text) <= _LONG else text[:_LONG] + " ..."))
        table.add_section()
    Console().print(table)


def note(text: str) -> None:
    """A remark on stderr, where it disturbs no reader of stdout."""
    print(visible(text), file=sys.stderr)


def line(text: str) -> None:
    """A line on stdout."""
    print(visible(text))


def size(count: int) -> str:
    """Bytes as people read them, e.g. 1.5 GB."""
    value = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


class Bar:
    """A progress bar on stderr, silent where stderr is not a terminal. Fits `pipeline.runner.Progress`."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._task: Any = None

    def start(self, label: str, total: int) -> None:
        """Begin a bar; an earlier one is ended."""
        self.stop()
        if not sys.stderr.isatty() or not total:
            return
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
        console = Console(stderr=True)
        self._progress = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console)
        self._progress.start()
        self._task = self._progress.add_task(visible(label), total=total)

    def advance(self, n: int) -> None:
        """So many more are done."""
        if self._progress is not None:
            self._progress.advance(self._task, n)

    def stop(self) -> None:
        """End the bar."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def typed(program: str) -> str:
    """The command as the user typed it, without secrets: it is kept in the store, on cards and in exports."""
    return shlex.join([program, *arguments()])


def version_option(program: str) -> Callable[[bool], None]:
    """Callback of a `--version` option."""

    def show(asked: bool) -> None:
        if asked:
            print(f"{program} {version('strive-video')}")
            raise typer.Exit

    return show


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _shown(text: str) -> Text:
    """Texts of users are neither markup nor orders to the terminal."""
    return Text(visible(text))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(_plain(value), ensure_ascii=False, default=str)
