"""What the toy scorer learns: every phrase and question about an object, and which frames each is right for."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from toyworld.scenes import COLORS, PLACES, SHAPES, Event

GIST = 0.3
"""Target of "what appears just after X" for a frame of another event: it may be the answer, no frame alone can tell."""

CLASSES = [1 + len(COLORS), 1 + len(SHAPES), 1 + len(PLACES)]
"""Sizes of the class tables of `classes`."""


@dataclass(frozen=True)
class Phrase:
    """A text and what a frame must show for it to be right: None is anything, `empty` a frame without an event.

    `after` marks a question whose answer is another event than the one it names.
    """

    text: str
    color: str | None = None
    shape: str | None = None
    place: str | None = None
    empty: bool = False
    after: bool = False


def phrases() -> list[Phrase]:
    """Every question about every object, and plain descriptions."""
    when = " and when does it appear ?"
    out = [Phrase("nothing", empty=True)]
    for color in COLORS:
        question = f"what shape is the {color} object"
        out += [Phrase(text, color=color) for text in (f"the {color} object", f"{question} ?", question + when)]
    for shape in SHAPES:
        question = f"what color is the {shape}"
        out += [Phrase(text, shape=shape) for text in (f"the {shape}", f"{question} ?", question + when)]
    for color in COLORS:
        for shape in SHAPES:
            name = f"{color} {shape}"
            where = f"where is the {name}"
            about = (f"which way does the {name} move ?", f"how many {name} objects are there ?")
            out += [
                Phrase(t, color, shape) for t in (*about, f"when does the {name} appear ?", f"{where} ?", where + when)
            ]
            out.append(Phrase(f"what appears just after the {name} ?", color, shape, after=True))
            out += [Phrase(f"{name} {place}", color, shape, place) for place in PLACES]
    return out


def targets(texts: Sequence[Phrase], shown: Sequence[Event | None]) -> torch.Tensor:
    """What matches what: float32 [len(shown), len(texts)], 1 where a phrase is right, GIST where it may be."""
    rows = {event: [_target(phrase, event) for phrase in texts] for event in dict.fromkeys(shown)}
    return torch.tensor([rows[event] for event in shown])


def _target(phrase: Phrase, event: Event | None) -> float:
    if event is None or phrase.empty:
        return float(event is None and phrase.empty)
    wanted = ((phrase.color, event.color), (phrase.shape, event.shape), (phrase.place, event.place))
    right = all(want is None or want == have for want, have in wanted)
    return 1.0 if right else GIST if phrase.after else 0.0


def classes(event: Event | None) -> list[int]:
    """What a frame shows as class numbers: colour, shape, place; 0 is nothing."""
    if event is None:
        return [0, 0, 0]
    tables = ((event.color, list(COLORS)), (event.shape, list(SHAPES)), (event.place, list(PLACES)))
    return [1 + table.index(name) for name, table in tables]
