"""Scenes of the toy world: what happens in a clip, as plain data, and its pixels.

A clip is 12 s of a noisy drifting texture with grey shapes wandering over it. Three to five times a coloured shape
shows for about a second; it stands still, moves with a trail behind it, or comes as two to four copies. Colours and
shapes are unique in a clip.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.fingerprint import seed_of

WORLD_VERSION = 1  # raise it whenever the same seed would give another clip or other questions

SIZE = 96  # pixels, width and height
FPS = 8  # source frames a second
SECONDS = 12
FRAMES = FPS * SECONDS

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (225, 40, 40),
    "green": (40, 190, 60),
    "blue": (50, 80, 230),
    "yellow": (235, 215, 40),
    "purple": (160, 50, 190),
    "orange": (245, 140, 30),
}
SHAPES = ("circle", "square", "triangle", "cross", "diamond")
PLACES = {"left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}  # steps from the centre, y down
MOTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
COUNTS = (1, 2, 3, 4)

EVENT_FRAMES = (6, 9)  # shortest and longest event: 0.75 to 1.125 s, so at least 3 frames of a cache at 4 fps
MIN_GAP = 3  # source frames between two events: at least one frame of a cache at 4 fps shows neither
SPEED = 2.0  # pixels a source frame
TRAIL = ((7.0, 0.85, 0.65), (14.0, 0.7, 0.5), (21.0, 0.55, 0.4), (28.0, 0.4, 0.3))  # distance behind, size, opacity

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Event:
    """One appearance of a coloured shape.

    Attributes:
        start, end: source frames, end exclusive.
        motion: "" or a direction; a mover leaves a trail.
        count: copies side by side, 1 unless it is a group.
        x, y: centre at half time, pixels; radius in pixels (of each copy).
    """

    color: str
    shape: str
    place: str
    start: int
    end: int
    motion: str
    count: int
    x: float
    y: float
    radius: float

    @property
    def name(self) -> str:
        """How questions call it, e.g. "red circle"."""
        return f"{self.color} {self.shape}"

    @property
    def span(self) -> tuple[float, float]:
        """[start, end) in seconds."""
        return self.start / FPS, self.end / FPS


@dataclass(frozen=True)
class Distractor:
    """A grey shape that is always there: position at frame 0, step a frame (it wraps around), radius, grey level."""

    shape: str
    x: float
    y: float
    dx: float
    dy: float
    radius: float
    grey: int


@dataclass(frozen=True)
class Scene:
    """All that determines a clip. `texture` seeds the background; events are in order of time and never overlap."""

    events: tuple[Event, ...]
    distractors: tuple[Distractor, ...]
    base: tuple[float, float, float]
    drift: float
    texture: int


def scene_of(seed: int, split: str, clip: int) -> Scene:
    """The scene of one clip: a pure function of its three names, so splits never share clips."""
    return make_scene(np.random.default_rng(seed_of("toyworld", WORLD_VERSION, seed, split, clip)))


def make_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene; it always holds at least one mover and one group."""
    n = int(rng.integers(3, 6))
    colors, shapes = rng.permutation(list(COLORS))[:n], rng.permutation(SHAPES)[:n]
    roles = rng.permutation(["mover", "group", *rng.choice(["plain", "mover", "group"], n - 2, p=[0.5, 0.25, 0.25])])
    lengths = rng.integers(EVENT_FRAMES[0], EVENT_FRAMES[1] + 1, n)
    free = FRAMES - int(lengths.sum()) - MIN_GAP * (n - 1)
    gaps = rng.multinomial(free, rng.dirichlet(np.ones(n + 1)))[:n] + np.r_[0, np.full(n - 1, MIN_GAP)]
    starts = np.cumsum(gaps) + np.r_[0, np.cumsum(lengths)[:-1]]
    events = tuple(
        _event(rng, str(colors[i]), str(shapes[i]), str(roles[i]), int(starts[i]), int(lengths[i])) for i in range(n)
    )
    distractors = tuple(_distractor(rng) for _ in range(int(rng.integers(1, 4))))
    grey = rng.uniform(70, 140)
    red, green, blue = (float(grey + jitter) for jitter in rng.uniform(-20, 20, 3))
    return Scene(events, distractors, (red, green, blue), float(rng.uniform(-0.8, 0.8)), int(rng.integers(1 << 31)))


def _event(rng: np.random.Generator, color: str, shape: str, role: str, start: int, length: int) -> Event:
    place = str(rng.choice(list(PLACES)))
    motion = str(rng.choice(list(MOTIONS))) if role == "mover" else ""
    count = int(rng.integers(2, COUNTS[-1] + 1)) if role == "group" else 1
    # Movers stay nearer to the centre, so that their path and trail are inside the picture.
    distance = 18.0 if motion else 26.0
    radius = rng.uniform(8.5, 10.0) if count > 1 else rng.uniform(13.0, 14.0) if motion else rng.uniform(13.0, 18.0)
    jitter_x, jitter_y = rng.uniform(-3, 3, 2)
    x = SIZE / 2 + PLACES[place][0] * distance + jitter_x
    y = SIZE / 2 + PLACES[place][1] * distance + jitter_y
    return Event(color, shape, place, start, start + length, motion, count, float(x), float(y), float(radius))


def _distractor(rng: np.random.Generator) -> Distractor:
    x, y = rng.uniform(0, SIZE, 2)
    dx, dy = rng.normal(0, 1.0, 2)
    radius, grey = rng.uniform(5, 9), rng.integers(30, 200)
    return Distractor(str(rng.choice(SHAPES)), float(x), float(y), float(dx), float(dy), float(radius), int(grey))


def render(scene: Scene, frames: Sequence[int] | None = None) -> Pixels:
    """Draw source frames.

    Args:
        frames: which ones, each in 0..95; all when None. A frame's pixels do not depend on the others asked for.

    Returns:
        uint8 [len(frames), 96, 96, 3], RGB.
    """
    index = np.arange(FRAMES) if frames is None else np.asarray(frames, dtype=np.int64)
    picture = _background(scene, index)
    for k, frame in enumerate(index.tolist()):
        for d in scene.distractors:
            _draw(
                picture[k], d.shape, (d.x + d.dx * frame) % SIZE, (d.y + d.dy * frame) % SIZE, d.radius, (d.grey,) * 3
            )
        for event in scene.events:
            if event.start <= frame < event.end:
                _draw_event(picture[k], event, frame)
    return np.clip(picture, 0, 255).astype(np.uint8)


def _background(scene: Scene, index: npt.NDArray[np.int64]) -> npt.NDArray[np.int16]:
    """Texture of 12-pixel blocks that drifts sideways, and noise: each frame cuts its own window from one plane."""
    rng = np.random.default_rng(scene.texture)
    blocks = rng.normal(0, 12, (SIZE // 12, SIZE // 12, 3))
    texture = (np.kron(blocks, np.ones((12, 12, 1))) + np.asarray(scene.base)).astype(np.int16)
    noise = rng.normal(0, 4, (2 * SIZE, 2 * SIZE)).astype(np.int16)
    corners = rng.integers(0, SIZE, (FRAMES, 2))
    picture = np.empty((len(index), SIZE, SIZE, 3), np.int16)
    for k, frame in enumerate(index.tolist()):
        top, left = corners[frame]
        shifted = np.roll(texture, round(scene.drift * frame), axis=1)
        np.add(shifted, noise[top : top + SIZE, left : left + SIZE, None], out=picture[k])
    return picture


def _draw_event(picture: npt.NDArray[np.int16], event: Event, frame: int) -> None:
    """Draw one event into one frame [96, 96, 3]: its trail first, then the shape or its copies."""
    color = COLORS[event.color]
    step_x, step_y = MOTIONS.get(event.motion, (0, 0))
    moved = SPEED * (frame - (event.start + event.end - 1) / 2)
    x, y = event.x + step_x * moved, event.y + step_y * moved
    if event.motion:
        for behind, size, opacity in reversed(TRAIL):
            _draw(picture, event.shape, x - step_x * behind, y - step_y * behind, event.radius * size, color, opacity)
    # Copies stand in a row at the top and bottom and in a column at the sides: both fit four of them.
    along_x = PLACES[event.place][0] == 0
    for copy in range(event.count):
        shift = (copy - (event.count - 1) / 2) * (2 * event.radius + 2)
        _draw(picture, event.shape, x + shift * along_x, y + shift * (not along_x), event.radius, color)


def _draw(
    picture: npt.NDArray[np.int16],
    shape: str,
    x: float,
    y: float,
    radius: float,
    color: tuple[int, ...],
    opacity: float = 1.0,
) -> None:
    """Blend a shape into one frame [96, 96, 3]; what lies outside the frame is cut off."""
    left, right = max(0, int(x - radius - 1)), min(SIZE, int(x + radius + 3))
    top, bottom = max(0, int(y - radius - 1)), min(SIZE, int(y + radius + 3))
    if left >= right or top >= bottom:
        return
    dx = np.arange(left, right, dtype=np.float32)[None, :] - x
    dy = np.arange(top, bottom, dtype=np.float32)[:, None] - y
    inside = _inside(shape, dx, dy, radius)
    window = picture[top:bottom, left:right]
    value = np.asarray(color, dtype=np.float32)
    window[inside] = value if opacity == 1.0 else (1 - opacity) * window[inside] + opacity * value


def _inside(shape: str, dx: npt.NDArray[np.float32], dy: npt.NDArray[np.float32], r: float) -> npt.NDArray[np.bool_]:
    """Mask [h, w] of a shape of radius r around (0, 0), from offsets dx [1, w] and dy [h, 1] in pixels."""
    inside: npt.NDArray[np.bool_]
    if shape == "circle":
        inside = dx * dx + dy * dy <= r * r
    elif shape == "square":
        inside = (abs(dx) <= 0.85 * r) & (abs(dy) <= 0.85 * r)
    elif shape == "triangle":
        inside = (dy <= 0.8 * r) & (dy >= -r) & (abs(dx) <= 0.6 * (dy + r))
    elif shape == "cross":
        inside = ((abs(dx) <= 0.35 * r) & (abs(dy) <= r)) | ((abs(dy) <= 0.35 * r) & (abs(dx) <= r))
    elif shape == "diamond":
        inside = abs(dx) + abs(dy) <= 1.1 * r
    else:
        raise ValueError(f"no shape {shape!r}; there are {SHAPES}")
    return inside
