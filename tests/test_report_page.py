"""The report opened in a real browser: nothing is loaded, nothing of the data runs, and people can use it."""

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pipeline.report import data, page
from pipeline.store import Store
from tests.browser import DESK, PHONE, browser, opened
from tests.report_world import FACTS, a_world

ATTACK = "</script><img src=x onerror=alert(1)>"
HOSTILE = (
    ATTACK,
    "<svg/onload=alert(2)>\"'`; alert(3) //",
    "<!--<script>",
    "]]>&lt;b&gt;&amp;\u2028alert(4)\u2029{{7*7}}${alert(5)}%%DATA%%",
    "\u202edesrever\u2066\u200f\u0000\u0007tail",
    "javascript:alert(6)",
)


@pytest.fixture(scope="module")
def running() -> Iterator[Any]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    store = a_world(Store(folder / "s", create=True))
    path = folder / "report.html"
    page.write(data.read(store, "curated", samples=30, films=12), path)
    return path


def rows_of(web: Any) -> list[list[str]]:
    """The cells of the rows that are shown, as text."""
    found: list[list[str]] = web.evaluate(
        "[...document.querySelectorAll('#rows tr')].map(r => [...r.cells].map(c => c.innerText.trim()))"
    )
    return found


def test_filters_and_order_change_what_is_shown(running: Any, written: Path) -> None:
    with opened(running, written) as seen:
        web = seen.page
        everything = rows_of(web)
        assert len(everything) == 30
        web.select_option("#f-task", "=grounding")
        assert [row[1] for row in rows_of(web)] == ["grounding"] * 6
        web.select_option("#f-reason", "kept")
        kept = rows_of(web)
        assert kept == [row for row in everything if row[1] == "grounding" and row[3] == "kept"]
        assert 0 < len(kept) < 6
        assert web.inner_text("#count") == f"Showing {len(kept)} of the 30 samples in this page."
        web.click("#f-reset")
        web.wait_for_function("document.querySelectorAll('#rows tr').length === 30")
        web.select_option("#f-reason", "=answered blind")
        assert {row[3] for row in rows_of(web)} == {"answered blind"}
        web.click("#f-reset")
        web.fill("#f-text", "SCENE 17")
        assert [row[0].split("\n")[0] for row in rows_of(web)] == ["what happens in scene 17?"]
        web.fill("#f-text", "no such words")
        assert rows_of(web) == []
        assert web.is_visible("#nothing")
        web.fill("#f-text", "")
        for place, column, falling in ((0, 4, True), (1, 4, False), (2, 5, False), (4, 6, True)):
            web.select_option("#f-sort", str(place))
            shown = [row[column].split("\n")[0] for row in rows_of(web)]
            values = [float(value) for value in shown if value != "–"]
            assert values == sorted(values, reverse=falling)
            assert shown[len(values) :] == ["–"] * (30 - len(values))
        web.check("#f-film")
        assert len(rows_of(web)) == 12


def test_a_sample_opens_with_its_pictures_and_responses(running: Any, written: Path) -> None:
    with opened(running, written) as seen:
        web = seen.page
        web.check("#f-film")
        web.select_option("#f-reason", "kept")
        web.focus("#rows tr .open")
        web.keyboard.press("Enter")
        web.wait_for_selector("dialog[open] .strip img")
        sizes = web.evaluate(
            "Promise.all([...document.querySelectorAll('.strip img')].map(i => i.decode().then(() => i.naturalWidth)))"
        )
        assert len(sizes) == 32
        assert set(sizes) == {64}
        text = web.inner_text("dialog")
        for words in (
            "view 0 · anchor",
            "view 3",
            "no frame (blind)",
            "95 %:",
            "reward 1.00",
            "reward 0.00",
            "not read: no option",
        ):
            assert words in text, words
        assert web.evaluate("document.querySelector('.sheet').scrollTop") == 0
        assert web.evaluate("document.querySelector('dialog').contains(document.activeElement)")
        first = web.inner_text("#s-title")
        web.keyboard.press("ArrowRight")
        assert web.inner_text("#s-title") != first
        web.click("#s-previous")
        assert web.inner_text("#s-title") == first
        web.keyboard.press("Escape")
        assert not web.is_visible("dialog")
        assert web.evaluate("document.activeElement.innerText") == first  # back where one was


CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = (css) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = css; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = (c) => c.slice(0, 3).map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => { for (; node; node = node.parentElement) {
    const c = rgba(getComputedStyle(node).backgroundColor); if (c[3] === 255) return c; }
    return rgba(getComputedStyle(document.documentElement).backgroundColor); };
  const low = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let n = walker.nextNode(); n; n = walker.nextNode()) {
    const e = n.parentElement;
    const silent = ["SCRIPT", "OPTION"].includes(e.tagName) || e.closest(":disabled") || !e.getClientRects().length;
    if (silent || !n.data.trim()) continue;
    const style = getComputedStyle(e);
    const [a, b] = [light(rgba(e.namespaceURI.endsWith("svg") ? style.fill : style.color)), light(behind(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) low.push(`${ratio.toFixed(2)} ${e.tagName}.${e.getAttribute("class")}: ${n.data.slice(0, 30)}`);
  }
  return [...new Set(low)];
}"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
def test_it_is_readable_in_light_and_dark_on_a_desk_and_on_a_phone(
    running: Any, written: Path, dark: bool, viewport: dict[str, int]
) -> None:
    with opened(running, written, dark, **viewport) as seen:
        web = seen.page
        assert web.evaluate("document.documentElement.lang") == "en"
        ground = web.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(int(v) for v in ground[4:-1].split(",")) < 384) == dark
        for summary in web.query_selector_all("details > summary"):
            summary.click()
        fits = "e => [e.scrollWidth, e.clientWidth]"
        wide, room = web.eval_on_selector("html", fits)
        assert wide <= room == viewport["width"]
        assert web.evaluate(CONTRAST) == []
        unnamed = "[...document.querySelectorAll('input, select')].filter(e => !e.labels.length).map(e => e.id)"
        assert web.evaluate(unnamed) == []
        web.select_option("#f-task", "=grounded_choice")
        web.click("#rows tr .open")
        web.wait_for_selector("dialog[open] .draw")
        wide, room = web.eval_on_selector(".sheet", fits)
        assert wide <= room <= viewport["width"]
        assert web.evaluate(CONTRAST) == []


def test_a_phone_shows_every_sample_below_the_other(running: Any, written: Path) -> None:
    with opened(running, written, **PHONE) as seen:
        boxes = [row.bounding_box() for row in seen.page.query_selector_all("#rows tr")]
        assert min(box["height"] for box in boxes) > 60  # rows that are out of sight keep their height: nothing jumps
        assert all(box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"] for box in boxes)
        assert all(a["y"] + a["height"] <= b["y"] + 1 for a, b in pairwise(boxes))


def test_hostile_texts_are_shown_as_texts_and_do_nothing(running: Any, tmp_path: Path) -> None:
    everywhere = " ".join(HOSTILE)
    long = everywhere + "x" * 100_000
    facts = FACTS | dict.fromkeys(("rule", "policy", "scorers", "command", "made", "drawing"), everywhere)
    texts = {"question": everywhere, "options": [*HOSTILE, "plain"], "answer": "B", "source": everywhere}
    texts |= {"dataset": everywhere, "split": everywhere}
    store = a_world(Store(tmp_path / "s", create=True), 3, texts, facts)
    rows = store.table("rollouts")
    store.delete("rollouts", "true")
    for name, value in (("text", long), ("parse_error", everywhere)):
        place = rows.column_names.index(name)
        rows = rows.set_column(place, name, [[value] * rows.num_rows])
    store.append("rollouts", rows)
    path = tmp_path / "report.html"
    page.write(data.read(store, "curated"), path)
    assert ATTACK not in path.read_text(encoding="utf-8")
    with opened(running, path) as seen:
        web = seen.page
        assert web.evaluate("document.scripts.length") == 2
        assert json.loads(web.inner_text("#data", timeout=1000) or web.text_content("#data"))["samples"]
        web.fill("#f-text", "onerror=alert(1)")
        assert len(rows_of(web)) == 3
        web.select_option("#f-source", index=1)
        assert len(rows_of(web)) == 3
        web.click("#rows tr .open")
        web.wait_for_selector("dialog[open] pre")
        shown = web.text_content("#s-title")
        assert shown == everywhere
        assert web.text_content(".options li:first-child bdi") == ATTACK
        response = web.text_content("dialog pre")
        assert response.startswith(everywhere)
        assert "characters left out" in response
        assert web.text_content(".chip.wrong bdi").startswith("not read: " + ATTACK)
        planted = 'img:not([src^="data:image/jpeg"]), [onerror], [onload], svg svg'
        assert web.query_selector_all(planted) == []
        assert web.evaluate("document.scripts.length") == 2
        wide, room = web.eval_on_selector("html", "e => [e.scrollWidth, e.clientWidth]")
        assert wide <= room
        assert "7*7" in web.text_content(".lead")


def test_the_page_s_own_policy_stops_what_it_does_not_name(running: Any, written: Path, tmp_path: Path) -> None:
    """Were a text ever to become markup, the browser would still not run it: the check that the checks can fail."""
    text = written.read_text(encoding="utf-8")
    planted = tmp_path / "planted.html"
    planted.write_text(text.replace("<main>", '<main><img src="x.png" onerror="alert(1)"><script>alert(2)</script>'))
    with pytest.raises(AssertionError, match="Content Security Policy") as error, opened(running, planted) as seen:
        seen.page.wait_for_timeout(200)
    assert "x.png" in str(error.value)
    assert "inline script" in str(error.value)
    assert "event handler" in str(error.value)
    assert "dialog" not in str(error.value)
