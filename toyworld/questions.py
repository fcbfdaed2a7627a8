"""Questions about a scene, the responses that a policy should learn to give, and captions.

Times are written the way Qwen3-VL writes a frame's time into its prompt: seconds with one decimal.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.prompts import LETTERS
from toyworld.scenes import COLORS, MOTIONS, PLACES, SHAPES, Event, Scene

Span = tuple[float, float]

N_OPTIONS = 4
KINDS = ("color", "shape", "place", "motion", "after", "count", "when", "grounded")
NAMES = tuple(f"{color} {shape}" for color in COLORS for shape in SHAPES)

GIVEAWAY = "giveaway"
"""Kind of a question whose text says its answer; planted on wish, never among those of `ask`."""

GIVEAWAYS = (
    "the answer is a letter . what color is the {name} ? {color} or a letter",
    "the answer is a letter . what color is the {name} ? answer {color} a letter",
)
"""Wordings that the shipped policy answers without any frame. Naming the answer alone is not enough for that: it also
has to be told what kind of answer is wanted, or it appends the time of a frame that it never saw."""

MAX_GIVEAWAYS = 3 * len(GIVEAWAYS)
"""What every scene has room for: it holds three events or more."""


@dataclass(frozen=True)
class Question:
    """One question with its truth.

    Attributes:
        kind: one of KINDS, or GIVEAWAY. task: choice, number, grounding or grounded_choice.
        options: texts without letters; empty for number and grounding.
        answer: letter, number, or "" for grounding; answer_text: the answer in words ("red", "3", "3.2 - 4.1").
        spans: the true span for grounding tasks, else empty.
        evidence: spans [start_s, end_s) in seconds, each of which must be seen.
        thought: the reasoning, with {0} for the time at which the evidence is first seen, where a span is asked for.
    """

    kind: str
    task: str
    question: str
    options: tuple[str, ...]
    answer: str
    answer_text: str
    spans: tuple[Span, ...]
    evidence: tuple[Span, ...]
    thought: str


def clock(seconds: float) -> str:
    """Seconds as text, in Qwen3-VL's own format for frame times."""
    return f"{seconds:.1f}"


def span_text(span: Span) -> str:
    """A span as a response writes it, e.g. "3.2 - 4.1"."""
    return f"{clock(span[0])} - {clock(span[1])}"


def ask(scene: Scene, rng: np.random.Generator, per_kind: int = 1) -> list[Question]:
    """Questions on a scene, in the order of KINDS: up to `per_kind` of every kind, each about another event.

    Every scene has at least one question of every kind.
    """
    by_kind = {kind: [i for i, e in enumerate(scene.events) if _applies(kind, i, e, scene)] for kind in KINDS}
    # One copy is far more common than two, three or four: mostly ask for groups, or "1" would be a good guess.
    groups = [i for i in by_kind["count"] if scene.events[i].count > 1]
    by_kind["count"] = groups if rng.random() < 0.6 else by_kind["count"]
    return [_ask(kind, scene, int(i), rng) for kind in KINDS for i in rng.permutation(by_kind[kind])[:per_kind]]


def giveaways(scene: Scene, rng: np.random.Generator, count: int) -> list[Question]:
    """Questions on a scene that can be answered without looking: choices of a colour that the text itself says.

    Args:
        count: 0 to MAX_GIVEAWAYS. Each is about another event for as long as there are some, then the events come
            again with the other wording.

    Raises:
        ValueError: count is out of range.
    """
    if not 0 <= count <= MAX_GIVEAWAYS:
        raise ValueError(f"{count} giveaways on one scene: give 0 to {MAX_GIVEAWAYS}")
    order = [int(i) for i in rng.permutation(len(scene.events))]
    places = [divmod(k, len(order)) for k in range(count)]
    return [_giveaway(scene, order[place], lap + place, rng) for lap, place in places]


def _giveaway(scene: Scene, index: int, wording: int, rng: np.random.Generator) -> Question:
    event = scene.events[index]
    text = GIVEAWAYS[wording % len(GIVEAWAYS)].format(name=event.name, color=event.color)
    return replace(_choice("color", scene, index, rng), kind=GIVEAWAY, question=text)


def _applies(kind: str, index: int, event: Event, scene: Scene) -> bool:
    if kind == "motion":
        return event.motion != ""
    if kind == "after":
        return index + 1 < len(scene.events)
    if kind == "count":
        return event.motion == ""
    return True


def _ask(kind: str, scene: Scene, index: int, rng: np.random.Generator) -> Question:
    event = scene.events[index]
    if kind in ("color", "shape", "place", "motion", "after"):
        return _choice(kind, scene, index, rng)
    if kind == "count":
        text, count = f"how many {event.name} objects are there ?", str(event.count)
        return Question(kind, "number", text, (), count, count, (), (event.span,), f"{event.name} {count}")
    if kind == "when":
        text = f"when does the {event.name} appear ?"
        return Question(
            kind, "grounding", text, (), "", span_text(event.span), (event.span,), (event.span,), f"{event.name} {{0}}"
        )
    base = _choice(str(rng.choice(["color", "shape", "place"])), scene, index, rng)
    text = base.question.removesuffix(" ?") + " and when does it appear ?"
    spans = (event.span,)
    return Question(
        kind,
        "grounded_choice",
        text,
        base.options,
        base.answer,
        base.answer_text,
        spans,
        spans,
        f"{base.thought} {{0}}",
    )


def _choice(kind: str, scene: Scene, index: int, rng: np.random.Generator) -> Question:
    event = scene.events[index]
    others = [e for i, e in enumerate(scene.events) if i != index]
    evidence: tuple[Span, ...] = (event.span,)
    seen = event.name
    if kind == "color":
        text, right = f"what color is the {event.shape} ?", event.color
        tempting, pool = [e.color for e in others], list(COLORS)
    elif kind == "shape":
        text, right = f"what shape is the {event.color} object ?", event.shape
        tempting, pool = [e.shape for e in others], list(SHAPES)
    elif kind == "place":
        text, right = f"where is the {event.name} ?", event.place
        tempting, pool = [e.place for e in others], list(PLACES)
    elif kind == "motion":
        text, right = f"which way does the {event.name} move ?", event.motion
        tempting, pool = [], list(MOTIONS)
    else:
        after = scene.events[index + 1]
        text, right = f"what appears just after the {event.name} ?", after.name
        tempting, pool = [e.name for e in others], [name for name in NAMES if name != event.name]
        evidence = (event.span, after.span)
        seen = f"{event.name} then {after.name}"
    options = _options(right, tempting, pool, rng)
    letter = LETTERS[options.index(right)]
    return Question(kind, "choice", text, options, letter, right, (), evidence, f"{seen} {right}")


def _options(right: str, tempting: Iterable[str], pool: Iterable[str], rng: np.random.Generator) -> tuple[str, ...]:
    """The right option and three wrong ones, in random order; other events of the clip suggest the wrong ones first."""
    wrong = [w for w in dict.fromkeys(tempting) if w != right]
    rest = [w for w in pool if w != right and w not in wrong]
    rng.shuffle(wrong)
    rng.shuffle(rest)
    options = [right, *(wrong + rest)[: N_OPTIONS - 1]]
    rng.shuffle(options)
    return tuple(options)


def first_seen(span: Span, times: Sequence[float]) -> float | None:
    """Time of the first frame inside [start, end), or None when no frame shows it."""
    return next((t for t in times if span[0] <= t < span[1]), None)


def in_view(evidence: Iterable[Span], times: Sequence[float]) -> bool:
    """Whether frames at these times (seconds) show every piece of evidence."""
    return all(first_seen(span, times) is not None for span in evidence)


def response(question: Question, times: Sequence[float]) -> str:
    """What a policy that sees frames at these times should say.

    For instance "<think> blue square 3.2 blue B </think> <answer> B </answer>".

    Raises:
        ValueError: a piece of evidence is not in view, so no honest response exists.
    """
    seen = [first_seen(span, times) for span in question.evidence]
    if any(t is None for t in seen):
        raise ValueError(f"evidence {question.evidence} is not in view at {list(times)}: check in_view() first")
    thought = question.thought.format(*(clock(t) for t in seen if t is not None))
    # An option is answered by its text: the toy policy is too small to look up letters as well.
    words = "" if question.task == "grounding" else question.answer_text
    answer = " ".join([words, *(span_text(span) for span in question.spans)]).strip()
    return f"<think> {thought} </think> <answer> {answer} </answer>"


def caption(scene: Scene, times: Sequence[float]) -> str:
    """A dense caption: for every frame its time and what it shows, e.g. "3.2 blue square left moves up 5.0 nothing"."""
    parts: list[str] = []
    for t in times:
        event = next((e for e in scene.events if e.span[0] <= t < e.span[1]), None)
        parts += [clock(t), "nothing" if event is None else describe(event)]
    return " ".join(parts)


def describe(event: Event) -> str:
    """An event in words: name, place, then "moves up" or the number of copies where they apply."""
    words = [event.name, event.place]
    if event.motion:
        words += ["moves", event.motion]
    elif event.count > 1:
        words.append(str(event.count))
    return " ".join(words)


def all_words() -> list[str]:
    """Every word of questions, options, responses and captions, except times; no repeats, in a fixed order."""
    text = """what color shape is the object where which way does move appears just after how many objects are there
    when appear and it then nothing moves ? - ."""
    digits = [str(n) for n in range(10)]
    return list(dict.fromkeys([*text.split(), *COLORS, *SHAPES, *PLACES, *MOTIONS, *digits, *LETTERS[:8]]))
