"""TempCompass: four tasks in four files, video -> aspect -> questions, options inside the question (arXiv 2403.00476).

The same questions are also mirrored as rows with `video_id` and `dim`, there with a multiple-choice question for each
caption to be written (`mc_question`, `mc_answer`); without one, what the caption must say is an open answer. Half of
the videos are derived from others (reversed, joined, slowed down): the same question has another answer there.
"""

import re
from collections.abc import Mapping
from typing import Any

from pipeline.prompts import LETTERS
from pipeline.readers import normalise
from pipeline.sources.answers import apart, question_alone
from pipeline.sources.draft import Draft, Rejected, make_draft
from pipeline.sources.source import Source, by_video, columns, first_entry
from pipeline.sources.values import shown, text, unlettered

_CAPTION = "Generated Caption:"  # ends a question that asks for a caption and lists what may be in it
_INSIDE = re.compile(r"[?.]\s*A[.)]\s")

ASPECTS = ("action", "speed", "direction", "order", "attribute_change")


def fits(content: Any, name: str) -> bool:
    asked = first_entry(first_entry(content))
    nested = {"question", "answer"} <= columns(asked) and next(iter(first_entry(content))) in ASPECTS
    return nested or {"video_id", "dim", "question", "answer"} <= columns(content)


def rows(content: Any, beside: Mapping[str, Any]) -> list[Any]:
    """One row a question: video, aspect, its place in the aspect's list, question, answer."""
    if isinstance(content, list):
        return content
    return [
        {"video": video, "aspect": aspect, "place": place, **(item if isinstance(item, dict) else {"entry": item})}
        for video, entry in by_video(content).items()
        for aspect, asked in (entry if isinstance(entry, dict) else {"": entry}).items()
        for place, item in enumerate(asked if isinstance(asked, list) else [asked])
    ]


def draft(row: Any, number: int) -> Draft:
    """A question, its task told by what it says. Rows have no ids of their own: video/aspect/place."""
    video, aspect = text(row.get("video")) or text(row.get("video_id")), text(row.get("aspect")) or text(row.get("dim"))
    asked, answer = text(row.get("mc_question")), text(row.get("mc_answer"))
    task = "choice"
    if not asked:
        asked, answer = text(row.get("question")), text(row.get("answer"))
        if asked.endswith(_CAPTION):
            task, asked, answer = "open", asked.removesuffix(_CAPTION).strip(), unlettered(answer)
    question, options, right = _choices(asked, answer) if task == "choice" else (asked, [], answer)
    place = text(row.get("place")) or str(number)
    return make_draft(
        row,
        dataset="tempcompass",
        row_id=f"{video}/{aspect}/{place}",
        video=video,
        task=task,
        question=question,
        options=options,
        answer=right,
    )


def _choices(asked: str, answer: str) -> tuple[str, list[str], str]:
    """Question, options and letter of the answer, which is an option's whole line, its text or its label."""
    asked = question_alone(asked)
    question, lines = apart(asked)
    if not lines and normalise(answer) in ("yes", "no"):
        return question, ["Yes", "No"], "A" if normalise(answer) == "yes" else "B"
    if asked and not lines:
        raise Rejected("no choices", f"neither options nor yes or no: {shown(asked)}, {shown(answer)}")
    if _INSIDE.search(question):
        raise Rejected("option inside the question", f"an option stands on the question's own line: {shown(question)}")
    options = [option for _, option in lines]
    wanted = normalise(answer)
    for said in ([normalise(line) for line, _ in lines], [normalise(option) for option in options]):
        if wanted and wanted in said[: len(LETTERS)]:
            return question, options, LETTERS[said.index(wanted)]
    return question, options, answer


SOURCE = Source(
    "tempcompass", "TempCompass, questions about time", ("choice", "open"), fits, draft, rows, default_split="test"
)
