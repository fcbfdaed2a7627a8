"""EgoSchema: five long options, the answer a place or, in most releases, withheld (arXiv 2308.09126).

Releases put the options of a question in different orders, so an answer counts only beside the options it belongs to:
`subset_answers.json` is joined, by `q_uid`, to the questions.json of its own release and to nothing else.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.sources.answers import by_place, question_alone
from pipeline.sources.draft import Draft, make_draft
from pipeline.sources.source import Source, by_video, columns, first_entry
from pipeline.sources.values import missing, text, texts

OPTIONS = tuple(f"option {place}" for place in range(5))
ANSWERS = "subset_answers.json"


def fits(content: Any, name: str) -> bool:
    found = columns(content)
    keyed = first_entry(content)
    return (
        {"question_idx", "question", "video_idx", "option"} <= found
        or {"q_uid", "question", *OPTIONS} <= found
        or (isinstance(keyed, dict) and {"question", *OPTIONS} <= set(keyed))
    )


def beside(file: Path, content: Any) -> dict[str, Path]:
    """The public answers to 500 of the questions, where they lie beside questions.json."""
    answers = file.with_name(ANSWERS)
    return {"answers": answers} if "q_uid" in columns(content) and answers.is_file() else {}


def rows(content: Any, beside: Mapping[str, Any]) -> list[Any]:
    """One row a question; of an object keyed by `q_uid`, each with its key."""
    if not isinstance(content, list):
        return [
            {"q_uid": key, **(entry if isinstance(entry, dict) else {"entry": entry})}
            for key, entry in by_video(content).items()
        ]
    answers = by_video(beside["answers"]) if "answers" in beside else {}
    return [_joined(row, answers) for row in content]


def draft(row: Any, number: int) -> Draft:
    """A row; the public parquet has no answers."""
    name = text(row.get("video_idx")) or text(row.get("q_uid"))
    options = texts(row.get("option")) if "option" in row else [text(row.get(column)) for column in OPTIONS]
    answer = row.get("truth") if missing(row.get("answer")) else row.get("answer")
    return make_draft(
        row,
        dataset="egoschema",
        row_id=text(row.get("question_idx")) or name or str(number),
        video=name,
        task="choice",
        question=question_alone(text(row.get("question"))),
        options=options,
        answer=by_place(options, answer),
    )


def _joined(row: Any, answers: Mapping[str, Any]) -> Any:
    name = row.get("q_uid") if isinstance(row, dict) else None
    if not isinstance(name, str) or name not in answers or not missing(row.get("answer")):
        return row
    return {**row, "answer": answers[name]}


SOURCE = Source("egoschema", "EgoSchema, multiple choice", ("choice",), fits, draft, rows, beside, default_split="test")
