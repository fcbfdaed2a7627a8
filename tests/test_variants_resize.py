"""Views of lower resolution: where the task allows it, and nothing else of the view moves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.schemas import TASKS
from pipeline.transforms import apply_scale, draw_scale
from pipeline.variants import BuildVariants


@given(task=st.sampled_from(TASKS), seed=st.integers(0, 2**63 - 1), least=st.floats(0.5, 1.0))
def test_a_scale_keeps_what_the_task_needs(task: str, seed: int, least: float) -> None:
    scale = draw_scale(task, seed, least)
    assert least - 1 / 64 <= scale <= 1.0
    assert scale == np.float32(scale), "the table stores it exactly"
    assert scale == draw_scale(task, seed, least)
    if task in ("number", "open") or least == 1.0:
        assert scale == 1.0


def test_resized_views_have_less_detail_and_nothing_else_moves() -> None:
    """Scaling must not shift the picture: a bright square stays where it is."""
    frames = np.zeros((2, 64, 96, 3), np.uint8)
    frames[:, 20:36, 40:64] = 255
    small = apply_scale(frames, 0.5)
    assert small.shape == frames.shape
    assert np.array_equal(apply_scale(frames, 1.0), frames)
    weights = small[0, :, :, 0].astype(float)
    rows, columns = np.indices(weights.shape)
    centre = (rows * weights).sum() / weights.sum(), (columns * weights).sum() / weights.sum()
    assert centre == pytest.approx((27.5, 51.5), abs=0.1)
    noise = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    assert apply_scale(noise, 0.5).astype(float).var() < 0.6 * noise.astype(float).var()
    for wrong in (0.0, 1.01, -1.0, float("nan")):
        with pytest.raises(ValueError):
            apply_scale(frames, wrong)


def test_resize_is_part_of_the_recipe_and_reaches_the_views() -> None:
    times, scores = np.arange(40.0), np.linspace(0, 1, 40)
    plain = BuildVariants(m=4).views("s", "grounding", scores, times)
    resized = BuildVariants(m=4, resize=0.5).views("s", "grounding", scores, times)
    assert {view["scale"] for view in plain} == {1.0}
    assert resized[0]["scale"] == 1.0, "the anchor is never transformed"
    assert any(view["scale"] < 1.0 for view in resized[1:])
    assert [view["indices"] for view in plain] == [view["indices"] for view in resized]
    with pytest.raises(UserError, match="--resize"):
        BuildVariants(resize=0.4)
