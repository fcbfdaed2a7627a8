"""MMVU: expert questions, multiple choice or open, with an object of lettered choices (arXiv 2501.12380)."""

import re
from typing import Any
from urllib.parse import unquote

from pipeline.prompts import LETTERS
from pipeline.sources.answers import question_alone
from pipeline.sources.draft import Draft, Rejected, make_draft
from pipeline.sources.source import Source, columns
from pipeline.sources.values import shown, text, texts

KINDS = {"multiple-choice": "choice", "open-ended": "open"}
_ADDRESS = re.compile(r"https?://[^/]*/(?:(?:.*?/)?videos/)?([^?#]*).*", re.DOTALL)


def fits(content: Any, name: str) -> bool:
    found = columns(content)
    return {"id", "question_type", "question", "choices"} <= found and bool({"video", "video_path"} & found)


def draft(row: Any, number: int) -> Draft:
    """A row. Open questions carry five empty choices, and the rows of the test file no answer."""
    kind = text(row.get("question_type")).lower()
    if kind not in KINDS:
        raise Rejected("unknown question_type", f"question_type is {shown(row.get('question_type'))}")
    return make_draft(
        row,
        dataset="mmvu",
        row_id=text(row.get("id")) or str(number),
        video=_path(text(row.get("video_path")) or text(row.get("video"))),
        task=KINDS[kind],
        question=question_alone(text(row.get("question"))),
        options=_choices(row.get("choices")) if KINDS[kind] == "choice" else [],
        answer=text(row.get("answer")),
    )


def _choices(choices: Any) -> list[str]:
    """Choices at the places of their letters, where they are an object of letters."""
    if not isinstance(choices, dict) or not set(choices) <= set(LETTERS):
        return texts(choices)
    last = max((LETTERS.index(letter) for letter in choices), default=-1)
    return [text(choices.get(letter)) for letter in LETTERS[: last + 1]]


def _path(video: str) -> str:
    """The path below the folder `videos` of an address; a path as it is."""
    address = _ADDRESS.fullmatch(video)
    return unquote(address[1]) if address else video


SOURCE = Source("mmvu", "MMVU, expert questions", ("choice", "open"), fits, draft, default_split="val")
