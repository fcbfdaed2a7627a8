"""Lessons for the toy policy: what a frame shows; views of fresh scenes, questions that they answer, captions."""

import numpy as np
import numpy.typing as npt

from pipeline.views import View
from toyworld.questions import ask, caption, in_view, response
from toyworld.scenes import COLORS, MOTIONS, PLACES, SHAPES, Event, Scene, make_scene
from toyworld.scorer import TIMES, photographed
from trainer.sft import Lesson, Turn

VIEW_FRAMES = 8
QUESTIONS_A_VIEW = 6
CAPTION_QUESTION = "what is there ?"


def attributes(event: Event | None) -> list[int]:
    """What a frame shows as class numbers: colour, shape, place, motion, count; 0 is nothing."""
    if event is None:
        return [0, 0, 0, 0, 0]
    return [
        1 + list(COLORS).index(event.color),
        1 + list(SHAPES).index(event.shape),
        1 + list(PLACES).index(event.place),
        1 + list(MOTIONS).index(event.motion) if event.motion else 0,
        event.count,
    ]


CLASSES = (1 + len(COLORS), 1 + len(SHAPES), 1 + len(PLACES), 1 + len(MOTIONS), 5)


def study_view(scene: Scene, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Frames of a training view: one a stretch of the clip, and some of the events, thinly or densely sampled."""
    n = len(TIMES)
    chosen = {int(rng.integers(a[0], a[-1] + 1)) for a in np.array_split(np.arange(n), VIEW_FRAMES // 2)}
    events = [
        np.flatnonzero([e.span[0] <= t < e.span[1] for t in TIMES])
        for e in (scene.events[int(i)] for i in rng.permutation(len(scene.events)))
    ]
    dense = rng.random() < 0.5
    for frames in events:
        take = len(frames) if dense else 1
        for k in rng.permutation(frames)[:take]:
            if len(chosen) < VIEW_FRAMES:
                chosen.add(int(k))
    while len(chosen) < VIEW_FRAMES:
        chosen.add(int(rng.integers(n)))
    return np.sort(np.array(list(chosen)))


def lesson(rng: np.random.Generator) -> Lesson:
    """A view of a fresh scene, questions whose evidence it shows, and its caption."""
    scene = make_scene(rng)
    view = fresh_view(scene, rng)
    seen = view.times.tolist()
    questions = [q for q in ask(scene, rng, per_kind=2) if in_view(q.evidence, seen)]
    turns = [
        Turn(q.question, q.options, response(q, seen))
        for q in (questions[int(i)] for i in rng.permutation(len(questions))[:QUESTIONS_A_VIEW])
    ]
    return Lesson(view, [*turns, Turn(CAPTION_QUESTION, (), caption(scene, seen))])


def fresh_view(scene: Scene, rng: np.random.Generator) -> View:
    """What a training view shows."""
    indices = study_view(scene, rng)
    return View(np.stack(photographed(scene, indices.tolist(), rng)), TIMES[indices])
