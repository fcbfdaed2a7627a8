"""Rewards of a response: its parts against the truth, and the rule that joins them. Metrics use the same functions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError
from pipeline.measures import boundary_iou, mean_relative_accuracy, rouge_l, temporal_iou
from pipeline.parsing import Parsed, parse_answer
from pipeline.prompts import LETTERS
from pipeline.readers import Span, normalise, read_number
from pipeline.schemas import TASKS

if TYPE_CHECKING:
    import polars as pl

WEIGHTS = ("accuracy", "iou", "format")
FORMS = {"number": ("exact", "mra"), "text": ("exact", "rouge"), "span": ("iou", "boundary")}
_EXAMPLE = "write it like --reward number=mra,text=rouge,span=boundary,accuracy=1,iou=1,format=0.1"


@dataclass(frozen=True)
class RewardRule:
    """How reward parts become a reward: which form of a part counts, and with what weight.

    Attributes:
        accuracy, iou, format: weights, 0 or more. They matter where a task has several of these parts. A part of weight
            0 does not count; a task of which no part counts has reward 0. `format` enters `Reward.total` alone.
        number: "exact" (right or wrong) or "mra" (mean relative accuracy).
        text: of open answers: "exact" or "rouge" (ROUGE-L F1).
        span: "iou" or "boundary" (IoU times what the distances of both ends leave of it).

    Raises:
        UserError: a weight that is negative or not finite, no weight for both accuracy and iou, an unknown form.
    """

    accuracy: float = 1.0
    iou: float = 1.0
    format: float = 0.0
    number: str = "exact"
    text: str = "rouge"
    span: str = "iou"

    def __post_init__(self) -> None:
        weights = [getattr(self, name) for name in WEIGHTS]
        if not (math.isfinite(sum(weights)) and min(weights) >= 0):
            raise UserError(f"--reward {self.line()}", "expected weights that are finite and not negative", _EXAMPLE)
        if not (self.accuracy or self.iou):
            raise UserError(f"--reward {self.line()}", "expected a weight above 0 for accuracy or iou", _EXAMPLE)
        for name, known in FORMS.items():
            if getattr(self, name) not in known:
                raise UserError(f"--reward {name}={getattr(self, name)}", f"expected {' or '.join(known)}", _EXAMPLE)

    @classmethod
    def parse(cls, text: str) -> "RewardRule":
        """The rule of a text like "number=mra,accuracy=1,format=0.1"; what it leaves out keeps its default.

        Raises:
            UserError: something else than name=value, an unknown or repeated name, or a value that cannot be.
        """
        given: dict[str, Any] = {}
        for piece in text.split(",") if text.strip() else []:
            name, _, value = (part.strip() for part in piece.partition("="))
            if name not in {field.name for field in fields(cls)} or name in given:
                raise UserError(
                    f"--reward {piece.strip()}",
                    f"expected each of {', '.join((*WEIGHTS, *FORMS))} once at most",
                    _EXAMPLE,
                )
            try:
                given[name] = float(value) if name in WEIGHTS else value
            except ValueError as error:
                raise UserError(f"--reward {piece.strip()}", "expected a number", _EXAMPLE) from error
        return cls(**given)

    def line(self) -> str:
        """The rule in one line, every part named: `parse` of it is this rule."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return ",".join(f"{k}={repr(v).removesuffix('.0') if k in WEIGHTS else v}" for k, v in values.items())


DEFAULT_RULE = RewardRule()


@dataclass(frozen=True)
class Reward:
    """The reward parts of one response, each in 0..1 (None where the task has no such part), and what they come to.

    Attributes:
        accuracy: 1 for the right answer, else 0. credit: how near the answer is (number: MRA, open: ROUGE-L); never
            below accuracy. iou: temporal IoU. boundary_iou: IoU weighted by the distances of both ends; None without a
            duration too. format: 1 when the response keeps the format.
        reward: accuracy or credit, and IoU, joined by a rule; never format: variance is taken of it.
        total: what a trainer optimises: the reward, and format by its weight.
        parse_error: why the answer could not be read; empty when it could.
    """

    accuracy: float | None
    credit: float | None
    iou: float | None
    boundary_iou: float | None
    format: float
    reward: float
    total: float
    parse_error: str


def duration_of(sample: Mapping[str, Any], durations: Mapping[str, float]) -> float | None:
    """Seconds that a sample's spans lie in: its clip's length, else its video's; None where neither is known.

    Args:
        sample: a row with clip and video_id. durations: of videos, by video_id.
    """
    if sample["clip"]:
        start, end = sample["clip"]
        return float(end) - float(start)
    return durations.get(sample["video_id"])


def _choice_accuracy(letter: str | None, answer: str, options: Sequence[str]) -> float:
    true = answer.strip().upper()
    letters = LETTERS[: len(options)] if options else LETTERS
    if len(true) != 1 or true not in letters:
        raise ValueError(f"the true answer {answer!r} is not the letter of one of {len(options)} options")
    if letter is None or letter == true or not options:
        return float(letter == true)
    # Two options with the same text are the same option (it happens in NExT-GQA).
    return float(normalise(options[letters.index(letter)]) == normalise(options[letters.index(true)]))


def _number_parts(number: float | None, answer: str) -> tuple[float, float]:
    """Accuracy and credit of a number; equal but for the last digits of a float is equal."""
    true = read_number(answer)
    if true is None:
        raise ValueError(f"the true answer {answer!r} is not a number")
    if number is None:
        return 0.0, 0.0
    if math.isclose(number, true, rel_tol=1e-9, abs_tol=1e-12):
        return 1.0, 1.0
    return 0.0, mean_relative_accuracy(number, true)


def _text_parts(text: str | None, answer: str) -> tuple[float, float]:
    """Accuracy and credit of an open answer; an equal one has full credit in scripts without words too."""
    if not normalise(answer):
        raise ValueError("the true answer is empty")
    if text is None:
        return 0.0, 0.0
    return (1.0, 1.0) if normalise(text) == normalise(answer) else (0.0, rouge_l(text, answer))


def _span_parts(
    span: Span | None, spans: Sequence[Sequence[float]], duration_s: float | None
) -> tuple[float, float | None]:
    """IoU and boundary-weighted IoU, each the best over the true spans."""
    if not spans:
        raise ValueError("the sample has no true span")
    if span is None:
        return 0.0, None if duration_s is None else 0.0
    iou = max(temporal_iou(span, true) for true in spans)
    return iou, None if duration_s is None else max(boundary_iou(span, true, duration_s) for true in spans)


def score(
    text: str,
    task: str,
    options: Sequence[str],
    answer: str,
    spans: Sequence[Sequence[float]],
    duration_s: float | None = None,
    rule: RewardRule = DEFAULT_RULE,
) -> Reward:
    """Reward parts of one response, and what they come to under a rule.

    choice, number, open: the reward is accuracy, or credit where the rule says so. grounding: IoU. grounded_choice: the
    weighted mean of accuracy and IoU.

    Args:
        text: the response.
        task: one of schemas.TASKS.
        options: texts of the options, without letters.
        answer: the true answer; a letter for choices.
        spans: true spans [[start_s, end_s]].
        duration_s: of the video, or of the part that the question is about (`duration_of`); for boundary_iou.

    Raises:
        ValueError: the sample itself cannot be scored (no such letter, no number, no span, no duration where the rule
            needs one). A response never raises.
    """
    parsed = parse_answer(text, task, options)
    accuracy, credit, iou, boundary = _parts(parsed, task, options, answer, spans, duration_s)
    if rule.span == "boundary" and iou is not None and boundary is None:
        raise ValueError("span=boundary needs the duration of the sample's video, which is not known")
    right = credit if _is_credited(task, rule) else accuracy
    place = boundary if rule.span == "boundary" else iou
    share, weight = _shares(task, rule)
    if right is not None and place is not None:
        reward = share * right + (1.0 - share) * place
    else:
        reward = (right if right is not None else place or 0.0) if weight else 0.0
    kept = float(parsed.format_ok)
    part = weight / (weight + rule.format) if weight else 0.0
    total = part * reward + (1.0 - part) * kept if rule.format else reward
    return Reward(accuracy, credit, iou, boundary, kept, reward, total, parsed.error)


def _parts(
    parsed: Parsed,
    task: str,
    options: Sequence[str],
    answer: str,
    spans: Sequence[Sequence[float]],
    duration_s: float | None,
) -> tuple[float | None, float | None, float | None, float | None]:
    """accuracy, credit, IoU and boundary-weighted IoU: those that the task has."""
    accuracy: float | None = None
    credit: float | None = None
    if task in ("choice", "grounded_choice"):
        accuracy = _choice_accuracy(parsed.letter, answer, options)
    elif task == "number":
        accuracy, credit = _number_parts(parsed.number, answer)
    elif task == "open":
        accuracy, credit = _text_parts(parsed.text, answer)
    if task not in ("grounding", "grounded_choice"):
        return accuracy, credit, None, None
    return accuracy, credit, *_span_parts(parsed.span, spans, duration_s)


def _is_credited(task: str, rule: RewardRule) -> bool:
    """Whether a task's answers earn partial credit."""
    return (task, rule.number) == ("number", "mra") or (task, rule.text) == ("open", "rouge")


def _shares(task: str, rule: RewardRule) -> tuple[float, float]:
    """Share of accuracy among the parts of a task, and the weight of all of them, format aside.

    The other part's share is 1 minus this one, so that two parts of 1 make exactly 1 in floating point too.
    """
    accuracy = 0.0 if task == "grounding" else rule.accuracy
    iou = rule.iou if task in ("grounding", "grounded_choice") else 0.0
    weight = accuracy + iou
    return (accuracy / weight if weight else 0.0), weight


def is_binary(task: str, rule: RewardRule = DEFAULT_RULE) -> bool:
    """Whether a task's reward is 0 or 1: choices, and numbers and open answers without partial credit."""
    return task in ("choice", "number", "open") and not _is_credited(task, rule)


def reward_expr(rule: RewardRule = DEFAULT_RULE) -> "pl.Expr":
    """`Reward.reward` of whole tables, equal to the last bit: a float64 expression over rows of the ledger.

    Reads the columns task, accuracy, credit, iou and boundary_iou. A part that a row should have and has not (a
    boundary_iou where no duration was known) makes its reward null, as does an unknown task.
    """
    import polars as pl  # the trainer scores one by one and needs no tables

    place = pl.col("boundary_iou" if rule.span == "boundary" else "iou").cast(pl.Float64)
    reward = pl.lit(None, dtype=pl.Float64)
    for task in TASKS:
        right = pl.col("credit" if _is_credited(task, rule) else "accuracy").cast(pl.Float64)
        share, weight = _shares(task, rule)
        joined = {"grounding": place, "grounded_choice": share * right + (1.0 - share) * place}.get(task, right)
        reward = pl.when(pl.col("task") == task).then(joined if weight else 0.0).otherwise(reward)
    return reward.alias("reward")
