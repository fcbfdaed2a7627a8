"""Positions from true times: golden values, properties, and the stock function where it is right."""

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from pipeline.views import View
from tests.tiny_policy import BUILDERS, view
from trainer.families import TEXT, VIDEO, clocked_positions, frame_positions, ticks
from trainer.policy import Policy


def block(before: int, video: int, after: int) -> Tensor:
    return torch.tensor([TEXT] * before + [VIDEO] * video + [TEXT] * after)


def test_golden_clocked_positions() -> None:
    """Two words, frames of 1 x 2 patches at ticks 0, 3 and 10, two words: text goes on behind the last tick."""
    assert clocked_positions(block(2, 6, 2), 1, 2, torch.tensor([0, 3, 10])).tolist() == [
        [0, 1, 2, 2, 5, 5, 12, 12, 13, 14],
        [0, 1, 2, 2, 2, 2, 2, 2, 13, 14],
        [0, 1, 2, 3, 2, 3, 2, 3, 13, 14],
    ]


def test_text_goes_on_behind_the_wider_axis() -> None:
    """A picture larger than its time is long: as Qwen3-VL's frames, p + max(height, width)."""
    types = block(3, 6, 2)
    assert torch.equal(clocked_positions(types, 2, 3, torch.tensor([0])), frame_positions(types, 2, 3))
    assert clocked_positions(types, 1, 6, torch.tensor([4]))[:, -2:].tolist() == [[9, 10]] * 3


def test_positions_of_a_published_example() -> None:
    """The authors' own example: 3 patches of 2 x 2, 1 frame a second, 25 ticks a second, text from 101 on."""
    positions = clocked_positions(block(0, 12, 5), 2, 2, ticks([0, 2, 4], 25))
    assert positions[0].tolist() == [0] * 4 + [50] * 4 + [100] * 4 + [101, 102, 103, 104, 105]
    assert positions[1].tolist() == [0, 0, 1, 1] * 3 + [101, 102, 103, 104, 105]
    assert positions[2].tolist() == [0, 1, 0, 1] * 3 + [101, 102, 103, 104, 105]


def test_positions_of_a_long_clip() -> None:
    """16 words, 8 frames of 10 x 18 patches 4 s apart, 4 ticks a second: the text behind starts at 129."""
    positions = clocked_positions(block(16, 8 * 180, 40), 10, 18, ticks(np.arange(8) * 4.0, 4))
    assert positions[:, 16].tolist() == [16, 16, 16]
    assert positions[:, 16 + 8 * 180 - 1].tolist() == [128, 25, 33]
    assert positions[:, -40].tolist() == [129, 129, 129]
    assert positions[:, -1].tolist() == [168, 168, 168]


def test_the_stock_model_restarts_text_inside_the_clip() -> None:
    """The same clip in transformers 5.3 and later: 34, amid the frames' times; its 5.2 and the authors have 129.

    When this fails, the stock function is right again: compare whole prompts with it below.
    """
    model, _ = BUILDERS["qwen2_5_vl"](0)
    model.config.vision_config.tokens_per_second = 4
    types = block(16, 8 * 180, 40)
    stock, _ = model.model.get_rope_index(
        input_ids=types[None],
        mm_token_type_ids=types[None],
        video_grid_thw=torch.tensor([[8, 20, 36]]),
        second_per_grid_ts=torch.tensor([4.0]),
    )
    assert stock[0, 0, -41].item() == 16 + 7 * 16
    assert stock[:, 0, -40].tolist() == [34, 34, 34]


@given(
    st.lists(st.floats(0, 7200), min_size=1, max_size=12).map(sorted),
    st.sampled_from([1.0, 2.0, 4.0, 25.0]),
    st.integers(1, 5),
    st.integers(1, 5),
    st.integers(0, 9),
)
def test_time_is_a_position(times: list[float], rate: float, height: int, width: int, lead: int) -> None:
    """Each frame stands at its own time, whatever the others are; text counts up without a gap on either side."""
    at = ticks(times, rate)
    patches = height * width
    positions = clocked_positions(block(lead, len(times) * patches, 3), height, width, at)
    assert positions[:, :lead].tolist() == [list(range(lead))] * 3
    video = positions[:, lead : lead + len(times) * patches].reshape(3, len(times), patches) - lead
    assert (video[0] == at[:, None]).all()
    assert (video[1:] == video[1:, :1]).all()
    assert torch.equal(video[1, 0] * width + video[2, 0], torch.arange(patches))
    first = int(positions[:, : lead + len(times) * patches].max()) + 1
    assert positions[:, -3:].tolist() == [[first, first + 1, first + 2]] * 3
    assert all(0 <= t * rate - k < 1 + 1e-5 or k - t * rate < 1e-5 for t, k in zip(times, at.tolist(), strict=True))


@example(1, 49)
@given(st.integers(0, 10**5), st.integers(1, 60))
def test_a_time_that_is_a_tick_is_that_tick(tick: int, rate: int) -> None:
    """Also where floating point ends just below it."""
    assert ticks([tick / rate], rate).tolist() == [tick]
    assert ticks([max(0.0, tick / rate - 1e-9)], rate).tolist() == [tick]


@pytest.mark.parametrize("times", [[-0.1], [1.0, float("nan")], [float("inf")]])
def test_times_that_are_none_raise(times: list[float]) -> None:
    with pytest.raises(ValueError, match="finite and not negative"):
        ticks(times, 2.0)


@pytest.mark.parametrize("types", [block(1, 5, 1), block(1, 7, 1), torch.cat([block(1, 3, 1), block(0, 3, 1)])])
def test_video_tokens_that_are_not_the_frames_raise(types: Tensor) -> None:
    with pytest.raises(ValueError, match="do not form one run"):
        clocked_positions(types, 2, 3, torch.tensor([0]))


@pytest.mark.parametrize(("step", "rate"), [(0.5, 2), (1.0, 2), (2.5, 2), (0.3, 10), (4.0, 4)])
@pytest.mark.parametrize("frames", [1, 2, 7])
def test_even_frames_stand_where_the_stock_model_puts_them(step: float, rate: int, frames: int) -> None:
    """Frames at equal steps from 0 are all that the stock function knows; its text behind them is not compared."""
    model, processor = BUILDERS["qwen2_5_vl"](0)
    model.config.vision_config.tokens_per_second = rate
    even = View(view(frames).frames, np.arange(frames) * step)
    [ours] = Policy(model, processor, "tiny").family.heads([even])
    stock, _ = model.model.get_rope_index(
        input_ids=ours.ids[None],
        mm_token_type_ids=ours.types[None],
        video_grid_thw=ours.grid,
        second_per_grid_ts=torch.tensor([step], dtype=torch.float64),
    )
    upto = int((ours.types == VIDEO).nonzero()[-1]) + 1
    assert torch.equal(ours.positions[:, :upto], stock[:, 0, :upto])
