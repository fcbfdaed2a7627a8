"""Video-MMMU: lectures, three tracks of questions about the same videos (arXiv 2501.13826).

Assumed of the public parquet files, one a track (Perception, Comprehension, Adaptation): `id` ("test_Art_12", also the
name of the video's file; a video's three questions share it), `question`, `options` (a list, 2..14, with or without
letters), `answer` (a letter, or the text of an open question), `question_type` (multiple-choice, open, or the name of
the track), and in some releases `image`. A placeholder "<image 1>" without an image in the row stays in the question:
the picture is then shown at the end of the video.
"""

import re
from collections.abc import Mapping
from typing import Any

from pipeline.sources.answers import question_alone
from pipeline.sources.draft import Draft, Rejected, make_draft
from pipeline.sources.source import Source, columns
from pipeline.sources.values import missing, text, texts

_ID = re.compile(r"(?:dev|val|validation|test)_\w+_[0-9]+")
_PLACEHOLDER = re.compile(r"<image(?:[ _]?[0-9]+)?>")
_IMAGE = re.compile(r"image(?:_?[0-9]+)?")


def fits(content: Any, name: str) -> bool:
    if not {"id", "question", "options", "answer", "question_type"} <= columns(content):
        return False
    name = content[0].get("id")
    return isinstance(name, str) and _ID.fullmatch(name) is not None


def draft(row: Any, number: int) -> Draft:
    """A row; what needs a picture beside the video is rejected."""
    question, options = question_alone(text(row.get("question"))), texts(row.get("options"))
    shows = any(_PLACEHOLDER.search(said) for said in (question, *options))
    if shows and _has_image(row):
        raise Rejected("needs an image", "the question is about a picture of its own")
    name = text(row.get("id"))
    return make_draft(
        row,
        dataset="video-mmmu",
        row_id=name or str(number),
        video=name,
        task="choice" if any(options) else "open",
        question=question,
        options=options,
        answer=text(row.get("answer")),
    )


def _has_image(row: Mapping[Any, Any]) -> bool:
    """Whether a column of images holds one; an image may be an object of bytes and path, both empty."""
    images = [value for name, value in row.items() if _IMAGE.fullmatch(str(name))]
    return any(
        any(not missing(part) for part in image.values()) if isinstance(image, dict) else image for image in images
    )


SOURCE = Source("video-mmmu", "Video-MMMU, lectures", ("choice", "open"), fits, draft, default_split="test")
