"""A progress bar as a context: it ends also when the work inside fails."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline.runner import Progress


@contextmanager
def bar(progress: Progress | None, label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show `total` steps of work; yields the function that advances it. Without `progress` nothing is shown."""
    if progress is None:
        yield lambda n: None
        return
    progress.start(label, total)
    try:
        yield progress.advance
    finally:
        progress.stop()
