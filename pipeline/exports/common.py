"""What a format of another trainer is, what its rows show, and the words that several formats share. Pure functions."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.fingerprint import fingerprint
from pipeline.prompts import LETTERS, SYSTEM, question_text
from pipeline.sources.draft import CHOICES, GROUNDED

Row = dict[str, Any]
Sample = Mapping[str, Any]
"""A row of a curated dataset."""

FRAMES, CLIPS = "frames", "clips"
"""What rows show: the frames of a view, or the whole video file."""

SEVERAL_SPANS = "several spans"
PART_OF_A_VIDEO = "part of a longer video"
MEDIA_TAG = "media tag in the text"
ANSWER_TAG = "answer tag in the answer"

_MEDIA_TAG = re.compile(r"<(?:image|video|audio|bbox|ref-object|cot-process|start-image)>")
_ANSWER_TAG = re.compile(r"</?answer>")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ENDING = re.compile(r"\.[A-Za-z0-9]{1,5}")


class LeftOut(Exception):  # noqa: N818 - an outcome of a sample, not a fault of the program
    """A sample that an export cannot hold. `reason` is a short class for counting."""

    def __init__(self, reason: str, message: str = "") -> None:
        self.reason = reason
        super().__init__(message or reason)


@dataclass(frozen=True)
class Shown:
    """What one row shows.

    Attributes:
        root: the finished folder of the export, absolute.
        video: path of the video file, absolute, or below `root` where the format wants links; "" when it is not known.
        duration_s: its length in seconds; None when the file is not known.
        view: number of the view; None for the whole video.
        several: the export has a row for each view of a sample.
        frames: paths of the view's frames below `root`; empty where they are embedded.
        times: their true times, seconds from the video's first frame.
        jpegs: the frames themselves, where they are embedded.
    """

    root: Path
    video: str = ""
    duration_s: float | None = None
    view: int | None = None
    several: bool = False
    frames: tuple[str, ...] = ()
    times: tuple[float, ...] = ()
    jpegs: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Format:
    """The documented layout of one trainer.

    Attributes:
        name: as `--format` has it.
        title: whose layout it is.
        media: what its rows can show; the first is the default.
        refuse: (sample, medium) -> why the layout cannot say it; "" when it can.
        row: (sample, what it shows) -> a row.
        write: (folder to write into, finished folder, rows, medium) -> nothing; takes the rows one by one.
        usage: (finished folder, medium) -> how the trainer is pointed at it, one line or several.
        files: pattern of its data files, for the Hub's loaders.
        embeds: frames are part of the rows, not files.
        links: videos are wanted below the folder, so that links to them are made there.
        weighted: its rows carry the sample's weight.
        card: its README is the dataset's card.
    """

    name: str
    title: str
    media: tuple[str, ...]
    refuse: Callable[[Sample, str], str]
    row: Callable[[Sample, Shown], Row]
    write: Callable[[Path, Path, Iterable[Row], str], None]
    usage: Callable[[Path, str], str]
    files: str
    embeds: bool = False
    links: bool = False
    weighted: bool = False
    card: bool = False


def safe_name(text: str) -> str:
    """A text as the name of one file: itself where it is plain, else its hash. It never leads out of a folder."""
    return text if _NAME.fullmatch(text) else fingerprint("name", text)


def ending(path: str) -> str:
    """A file's ending with its dot, where it is an ordinary one; "" otherwise."""
    found = Path(path).suffix
    return found if _ENDING.fullmatch(found) else ""


def lettered(options: Sequence[str]) -> list[str]:
    """Options with their letters: "A. red"."""
    return [f"{LETTERS[place]}. {option}" for place, option in enumerate(options)]


def answer_text(sample: Sample) -> str:
    """The right answer as the system text asks for it: "B", "3", a text, "3.0 - 5.0", or "B 3.0 - 5.0".

    Raises:
        ValueError: a question about a moment has another number of spans than one.
    """
    if sample["task"] not in GROUNDED:
        return str(sample["answer"])
    if len(sample["spans"]) != 1:
        raise ValueError(f"sample {sample['sample_id']} has {len(sample['spans'])} spans")
    start, end = (round(float(moment), 3) for moment in sample["spans"][0])
    letter = f"{sample['answer']} " if sample["task"] in CHOICES else ""
    return f"{letter}{start} - {end}"


def solution(sample: Sample) -> str:
    """The right answer between the tags that policies are asked for."""
    return f"<answer>{answer_text(sample)}</answer>"


def many_spans(sample: Sample) -> bool:
    """Whether a question about a moment has several right ones, which one answer cannot say."""
    return sample["task"] in GROUNDED and len(sample["spans"]) > 1


def in_part(sample: Sample, medium: str) -> bool:
    """Whether a row would show a whole file although the question is about a part of it."""
    return medium == CLIPS and bool(sample["clip"])


def media_tag(sample: Sample) -> bool:
    """Whether question or options hold a tag that trainers replace by an image or a video."""
    return any(_MEDIA_TAG.search(text) for text in (sample["question"], *sample["options"]))


def answer_tag(sample: Sample) -> bool:
    """Whether the right answer holds the tags that would stand around it."""
    return bool(_ANSWER_TAG.search(sample["answer"]))


def refuse_one_answer(sample: Sample, medium: str) -> str:
    """Why a layout with placeholders for media and one answer as text cannot say a sample; "" when it can."""
    if many_spans(sample):
        return SEVERAL_SPANS
    if in_part(sample, medium):
        return PART_OF_A_VIDEO
    if media_tag(sample):
        return MEDIA_TAG
    return ANSWER_TAG if answer_tag(sample) else ""


def question_of(sample: Sample) -> str:
    """The question and its options, as a policy is asked."""
    return question_text(sample["question"], sample["options"])


def clock(time_s: float) -> str:
    """A frame's true time as it stands before the frame: a list of images says nothing of time."""
    return f"[{time_s:.2f} s]"


def tagged(sample: Sample, shown: Shown) -> str:
    """The user's text with a tag where each image, or the video, belongs, and before each image its time."""
    if shown.view is None:
        return f"<video>{question_of(sample)}"
    return "".join(f"{clock(time)}<image>" for time in shown.times) + "\n" + question_of(sample)


def tagged_messages(sample: Sample, shown: Shown) -> list[dict[str, str]]:
    """System and user message, the user's with tags."""
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": tagged(sample, shown)}]


def row_id(sample: Sample, shown: Shown) -> str:
    """The sample's id; with the view's number where each view has a row."""
    return f"{sample['sample_id']}-{shown.view}" if shown.several else str(sample["sample_id"])
