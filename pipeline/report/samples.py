"""The samples of a page as plain values, within a budget of bytes: rows, the responses drawn, the film strips."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.groups import wilson
from pipeline.report.texts import cut, number, script_json
from pipeline.views import ANCHOR

ROW_BYTES, RESPONSE_BYTES, FILM_BYTES = 3_000_000, 4_000_000, 7_000_000
"""What a page holds of each kind at most, so that it stays below 15 MB whatever the store holds."""

_NAME, _QUESTION, _OPTION, _RESPONSE = 200, 1500, 400, 2400  # characters that are shown of a text
_OPTIONS, _SPANS = 26, 50
_NOISE = 1e-9


@dataclass(frozen=True)
class Sample:
    """A sample to be shown: its row, its row of VERDICTS, why it was chosen, its views, its rollouts with `reward`."""

    row: Mapping[str, Any]
    verdict: Mapping[str, Any]
    chosen: str
    views: Sequence[Mapping[str, Any]]
    rollouts: Sequence[Mapping[str, Any]]


@dataclass
class Shown:
    """The samples as values for the page's JSON. `asked` were to be shown, `beyond` is why parts of them are not."""

    samples: list[dict[str, Any]] = field(default_factory=list)
    asked: int = 0
    films: int = 0
    without_responses: int = 0
    beyond_films: int = 0


def shown(samples: Sequence[Sample], films: int, film: Callable[[str], dict[str, Any] | str]) -> Shown:
    """As much of the samples as the budgets allow, in their order.

    Args:
        films: samples that get film strips, the first ones.
        film: sample_id -> what `film.film_of` returns.
    """
    out = Shown(asked=len(samples))
    rows, responses, pictures = ROW_BYTES, RESPONSE_BYTES, FILM_BYTES
    for place, sample in enumerate(samples):
        value = row_of(sample)
        rows -= size(value)
        if rows < 0:
            break
        drawn = [response_of(rollout) for rollout in sample.rollouts]
        cost = size(drawn)
        if cost <= responses:
            responses -= cost
            value["responses"] = drawn
        else:
            out.without_responses += 1
        if place < films:
            strip = film(sample.verdict["sample_id"])
            cost = size(strip)
            if isinstance(strip, dict) and cost > pictures:
                out.beyond_films += 1
            elif isinstance(strip, dict):
                pictures -= cost
                out.films += 1
                value["film"] = strip
            else:
                value["no_film"] = cut(strip, _QUESTION)
        out.samples.append(value)
    return out


def size(value: Any) -> int:
    """Bytes of a value in the page."""
    return len(script_json(value).encode("utf-8"))


def row_of(sample: Sample) -> dict[str, Any]:
    """What the table and the head of a sample show; "question" is null when the store has the sample no more."""
    row, verdict = sample.row, sample.verdict
    question = row["question"]
    return {
        **{column: cut(verdict[column], _NAME) for column in ("sample_id", "source", "dataset", "split", "video_id")},
        "task": verdict["task"],
        "reason": cut(verdict["reason"], _NAME),
        "chosen": sample.chosen,
        "question": None if question is None else cut(question, _QUESTION),
        "options": [cut(text, _OPTION) for text in row["options"][:_OPTIONS]],
        "answer": cut(row["answer"], _QUESTION),
        "spans": [[number(edge, 3) for edge in span] for span in row["spans"][:_SPANS]],
        "clip": [number(edge, 3) for edge in row["clip"]],
        "kinds": {str(view["variant"]): view["kind"] for view in sample.views},
        "stats": statistics(verdict),
        "changed": changed(sample),
    }


def statistics(verdict: Mapping[str, Any]) -> dict[str, Any] | None:
    """Statistics of a verdict with the intervals of its rates; None when nothing was drawn."""
    if verdict["reward_mean"] is None:
        return None
    names = ("reward_mean", "reward_low", "reward_high", "reward_var", "between_share", "format_rate", "weight")
    out: dict[str, Any] = {name: number(verdict[name], 6) for name in names}
    out["draws"] = verdict["draws"]
    for probe in ("blind", "one_frame"):
        draws, mean = verdict[f"{probe}_draws"] or 0, verdict[f"{probe}_mean"]
        ends = (None, None) if mean is None else wilson(min(mean * draws, draws), draws)
        out |= {f"{probe}_draws": draws, f"{probe}_mean": number(mean, 6)}
        out |= {f"{probe}_low": number(ends[0]), f"{probe}_high": number(ends[1])}
    return out


def changed(sample: Sample) -> bool:
    """Whether the ledger holds other rollouts now than those that the verdict stands on, by their number and mean."""
    if sample.verdict["reward_mean"] is None:
        return False
    drawn = [rollout["reward"] for rollout in sample.rollouts if rollout["variant"] >= ANCHOR]
    rewards = [reward for reward in drawn if reward is not None]
    if len(rewards) != sample.verdict["draws"]:
        return True
    return bool(rewards) and abs(sum(rewards) / len(rewards) - sample.verdict["reward_mean"]) > _NOISE


def response_of(rollout: Mapping[str, Any]) -> dict[str, Any]:
    """A response with its reward parts; parts that the task does not have are left out."""
    parts = {name: number(rollout[name]) for name in ("accuracy", "credit", "iou", "boundary_iou", "format", "logprob")}
    return {
        "variant": rollout["variant"],
        "draw": rollout["draw"],
        "tokens": rollout["tokens"],
        "reward": number(rollout["reward"]),
        **{name: value for name, value in parts.items() if value is not None},
        "error": cut(rollout["parse_error"], _NAME),
        "text": cut(rollout["text"], _RESPONSE),
    }
