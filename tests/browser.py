"""A real headless browser for tests of pages: any console error and any request beyond the page itself is a failure."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


def executable() -> str:
    """The installed browser. Without one the test is skipped, or fails where STRIVE_REQUIRE_BROWSER=1."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        why = f"none of {', '.join(NAMES)} is installed"
        if os.environ.get("STRIVE_REQUIRE_BROWSER") == "1":
            pytest.fail(why)
        pytest.skip(why)
    return found


@contextmanager
def browser() -> Iterator[Any]:
    """A running browser, ended with the block."""
    path = executable()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=FLAGS)
        try:
            yield running
        finally:
            running.close()


@dataclass
class Opened:
    """A page in the browser, and everything that went wrong in it so far."""

    page: Any
    problems: list[str] = field(default_factory=list)


@contextmanager
def opened(running: Any, path: Path, dark: bool = False, **viewport: int) -> Iterator[Opened]:
    """The page of a local file; the block's end fails on any console message, error, dialog or request it caused."""
    scheme = "dark" if dark else "light"
    context = running.new_context(viewport=viewport or DESK, color_scheme=scheme, reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(5000)
    found = Opened(page)
    address = path.absolute().as_uri()

    def asked(request: Any) -> None:
        if request.url.split("#")[0] != address and not request.url.startswith("data:"):
            found.problems.append(f"request {request.url[:200]}")

    def alerted(dialog: Any) -> None:
        found.problems.append(f"dialog {dialog.message[:200]}")
        dialog.dismiss()

    page.on("request", asked)
    page.on("dialog", alerted)
    page.on("console", lambda message: found.problems.append(f"console {message.type}: {message.text[:300]}"))
    page.on("pageerror", lambda error: found.problems.append(f"error {str(error)[:300]}"))
    try:
        page.goto(address)
        yield found
        assert not found.problems, found.problems
    finally:
        context.close()
