"""The page of runs in a real browser: a run can be hidden, curves are where their values are, texts are only texts."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.framereader import FrameReader
from tests.browser import DESK, PHONE, browser, opened
from tests.run_world import a_run, predictions, rows_of, settings_of, write_lines
from tests.test_report_page import ATTACK, CONTRAST, HOSTILE
from tests.toy_store import a_store
from trainer.runreport import answers, charts, page
from trainer.runreport.curves import smoothed
from trainer.runreport.runs import read_runs

GRPO, STRIVE = rows_of(60, 1, 300.0), rows_of(40, 2)


@pytest.fixture(scope="module")
def running() -> Iterator[Any]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    store = a_store(folder / "store")
    a_run(folder / "grpo", GRPO, settings_of(variants=1, responses=8, steps=60))
    a_run(folder / "strive", STRIVE, settings_of(steps=60), tail='{"step": 41, "rew')
    files = (
        write_lines(folder / "a.jsonl", predictions(store, 0)),
        write_lines(folder / "b.jsonl", predictions(store, 1, "importance")),
    )
    found = answers.compare(files, 100, 8, FrameReader(store), ["grpo", "strive"])
    path = folder / "runs.html"
    page.write(read_runs([folder / "grpo", folder / "strive"]), path, answers=found)
    return path


def visible(web: Any, panel: str) -> list[list[bool]]:
    """Of the chart that is shown of a panel: for each run whether its raw and its smoothed curve take any room."""
    found: list[list[bool]] = web.evaluate(
        """panel => [...document.querySelectorAll(`[data-panel="${panel}"] .by:not([hidden]) g.run`)].map(
             g => [...g.querySelectorAll('path')].map(p => p.getClientRects().length > 0))""",
        panel,
    )
    return found


def test_a_run_is_hidden_and_shown_by_its_box(running: Any, written: Path) -> None:
    with opened(running, written) as seen:
        web = seen.page
        panels = web.evaluate("[...document.querySelectorAll('.panel')].map(p => p.dataset.panel)")
        assert panels[:3] == ["reward_std", "dead_group_share", "grad_norm"]
        assert all(visible(web, panel) == [[True, True], [True, True]] for panel in panels)
        areas = "[...document.querySelectorAll('figure.run')].map(f => f.getClientRects().length > 0)"
        assert web.evaluate(areas) == [True, True]
        web.uncheck(".toggle[value='0']")
        assert all(visible(web, panel) == [[False, False], [True, True]] for panel in panels)
        assert web.evaluate(areas) == [False, True]
        web.uncheck("#raw")
        assert all(visible(web, panel) == [[False, False], [False, True]] for panel in panels)
        web.check(".toggle[value='0']")
        web.check("#raw")
        assert all(visible(web, panel) == [[True, True], [True, True]] for panel in panels)


def test_curves_are_where_their_values_are(running: Any, written: Path) -> None:
    with opened(running, written) as seen:
        web = seen.page
        where = """([panel, run, kind]) => {
          const svg = document.querySelector(`[data-panel="${panel}"] .by:not([hidden]) svg`);
          const d = svg.querySelector(`.c${run} .${kind}`).getAttribute('d');
          const ticks = [...svg.querySelectorAll('.tick.end')];
          const y = t => Number(t.getAttribute('y')) - 3.5;
          return [d, ticks.map(t => [Number(t.textContent), y(t)])]; }"""
        for run, rows in enumerate((GRPO, STRIVE)):
            values = [row["reward_std"] for row in rows]
            bold = smoothed([float(row["step"]) for row in rows], values, page.BETA)
            for kind, expected in (("raw", values), ("smooth", bold)):
                d, ticks = web.evaluate(where, ["reward_std", run, kind])
                points = [(float(x), float(y)) for x, y in re.findall(r"([\d.]+) ([\d.]+)", d)]
                assert len(points) == len(rows)
                (low, bottom), (high, top) = ticks[0], ticks[-1]
                read = [low + (bottom - y) / (bottom - top) * (high - low) for _, y in points]
                assert read == pytest.approx(expected, abs=0.002)
                assert points[0][0] == pytest.approx(charts.LEFT, abs=0.1)
        d, _ = web.evaluate(where, ["grad_norm", 1, "raw"])
        dead = sum(row["grad_norm"] is None for row in STRIVE)
        assert d.count("M") == dead + 1  # broken where no pool was live
        ends = (
            "[...document.querySelectorAll('[data-panel=reward_mean] .by')].map(b => [b.dataset.axis, +b.dataset.high])"
        )
        assert dict(web.evaluate(ends))["rollouts"] == 60 * 64


def test_the_axis_can_be_rollouts_or_time(running: Any, written: Path) -> None:
    with opened(running, written) as seen:
        web = seen.page
        shown = "[...new Set([...document.querySelectorAll('.by:not([hidden])')].map(b => b.dataset.axis))]"
        assert web.evaluate(shown) == ["step"]
        for axis in ("rollouts", "time", "step"):
            web.select_option("#axis", axis)
            assert web.evaluate(shown) == [axis]
            assert visible(web, "grad_norm") == [[True, True], [True, True]]


def test_the_pointer_reads_values_out(running: Any, written: Path) -> None:
    with opened(running, written) as seen:
        web = seen.page
        chart = web.locator("[data-panel='grad_norm'] .by:not([hidden]) svg")
        chart.scroll_into_view_if_needed()
        box = chart.bounding_box()
        share = (charts.LEFT + (charts.WIDTH - charts.LEFT - charts.RIGHT) * 9 / 59) / charts.WIDTH  # step 10
        web.mouse.move(box["x"] + share * box["width"], box["y"] + box["height"] / 2)
        said = web.inner_text("[data-panel='grad_norm'] .readout")
        assert said.startswith("step 10")
        for name, rows in (("grpo", GRPO), ("strive", STRIVE)):
            assert f"{name}: {float(format(rows[9]['grad_norm'], '.4g')):g}" in said
        web.mouse.move(box["x"] + box["width"] - 12, box["y"] + box["height"] / 2)
        said = web.inner_text("[data-panel='grad_norm'] .readout")
        assert "grpo" in said
        assert "strive" not in said  # it has not come that far
        web.mouse.move(2, 2)
        assert web.inner_text("[data-panel='grad_norm'] .readout") == ""
        assert web.query_selector_all(".cursor") == []


def test_answers_stand_side_by_side_with_their_frames(running: Any, written: Path) -> None:
    with opened(running, written) as seen:
        web = seen.page
        cards = """[...document.querySelectorAll('.pair-card')].map(
          c => [...c.querySelectorAll('.draw')].map(d => d.className))"""
        assert len(web.evaluate(cards)) == 12
        web.select_option("#f-better", "1")
        found = web.evaluate(cards)
        assert found
        assert all(sides == ["draw", "draw better"] for sides in found)
        web.select_option("#f-better", "same")
        assert all(sides == ["draw", "draw"] for sides in web.evaluate(cards))
        web.select_option("#f-better", "")
        web.select_option("#f-task", "grounding")
        assert len(web.evaluate(cards)) == 4
        assert "IoU" in web.inner_text(".pair-card .draw")
        web.select_option("#f-task", "")
        web.check("#f-film")
        assert len(web.evaluate(cards)) == 8
        sizes = web.evaluate(
            "Promise.all([...document.querySelectorAll('.strip img')].map(i => i.decode().then(() => i.naturalWidth)))"
        )
        assert len(sizes) == 8 * 2 * 8
        assert all(sizes)
        heads = web.evaluate("[...document.querySelectorAll('.pair-card:first-child .view h4')].map(h => h.innerText)")
        assert [head.split(" saw")[0] for head in heads] == ["Frames that grpo", "Frames that strive"]
        web.fill("#f-text", "no such words")
        assert web.evaluate(cards) == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
def test_it_is_readable_in_light_and_dark_on_a_desk_and_on_a_phone(
    running: Any, written: Path, dark: bool, viewport: dict[str, int]
) -> None:
    with opened(running, written, dark, **viewport) as seen:
        web = seen.page
        ground = web.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(int(v) for v in ground[4:-1].split(",")) < 384) == dark
        wide, room = web.eval_on_selector("html", "e => [e.scrollWidth, e.clientWidth]")
        assert wide <= room == viewport["width"]
        assert web.evaluate(CONTRAST) == []
        unnamed = "[...document.querySelectorAll('input, select')].filter(e => !e.labels.length).map(e => e.id)"
        assert web.evaluate(unnamed) == []
        colours = (
            "[...document.querySelectorAll('[data-panel=grad_norm] .smooth')].map(p => getComputedStyle(p).stroke)"
        )
        assert len(set(web.evaluate(colours))) == 2


def test_hostile_texts_are_shown_as_texts_and_do_nothing(running: Any, tmp_path: Path) -> None:
    everywhere = " ".join(HOSTILE)
    store = a_store(tmp_path / "store")
    places = [tmp_path / "<img src=x onerror=alert(1)>", tmp_path / "two\u202e&amp;"]
    for place, variants in zip(places, (1, 4), strict=True):
        rows = [row | {ATTACK.replace("/", "|"): 1.0, "parts": {everywhere: 0.5}} for row in rows_of(5, 0)]
        rows = [row | {"seconds": {**row["seconds"], everywhere: 1.0}} for row in rows]
        a_run(
            place, rows, settings_of(policy=everywhere, variants=variants, **{everywhere: everywhere + str(variants)})
        )
    texts = {
        "question": everywhere,
        "options": [*HOSTILE, "plain"],
        "task": "choice",
        "answer": "B",
        "dataset": everywhere,
    }
    texts |= {"spans": [], "response": everywhere + "x" * 50_000}
    names = [everywhere, "b"]
    files = [write_lines(tmp_path / f"{k}.jsonl", predictions(store, k, **texts)) for k in range(2)]
    broken = [row | {"failure": everywhere, "response": None} for row in predictions(store, 1, **texts)]
    write_lines(files[1], broken)
    found = answers.compare((files[0], files[1]), 100, 100, FrameReader(store), names)
    path = tmp_path / "runs.html"
    page.write(read_runs(places), path, answers=found)
    assert ATTACK not in path.read_text(encoding="utf-8")
    with opened(running, path) as seen:
        web = seen.page
        assert web.evaluate("document.scripts.length") == 2
        assert json.loads(web.text_content("#data"))["answers"]["names"] == names
        assert web.text_content(".pair-card h3") == everywhere
        assert web.text_content(".pair-card .options li:first-child bdi") == ATTACK
        assert web.text_content(".pair-card pre").startswith(everywhere)
        assert web.text_content(".sides > :nth-child(2) .chip.wrong") == "no response: " + everywhere
        assert "<img src=x onerror=alert(1)>" in web.text_content("h1")
        planted = 'img:not([src^="data:image/jpeg"]), [onerror], [onload], svg svg'
        assert web.query_selector_all(planted) == []
        wide, room = web.eval_on_selector("html", "e => [e.scrollWidth, e.clientWidth]")
        assert wide <= room
        web.uncheck(".toggle[value='1']")
        assert visible(web, "loss") == [[True, True], [False, False]]


def test_runs_without_a_step_and_without_answers_make_a_page(running: Any, tmp_path: Path) -> None:
    a_run(tmp_path / "new", [], settings_of())
    path = tmp_path / "runs.html"
    page.write(read_runs([tmp_path / "new"]), path)
    with opened(running, path) as seen:
        assert "There is no step yet" in seen.page.inner_text("#curves")
        assert not seen.page.is_visible("#answers")
