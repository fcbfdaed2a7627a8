"""The live line: one line that is rewritten on a terminal, a line now and then elsewhere; it never stops a run."""

import io
import os
import pty

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.live import LiveLine, duration, line_of, short

ROW = {
    "step": 7,
    "reward_mean": 0.5,
    "reward_std": 0.25,
    "dead_group_share": 0.125,
    "between_share": None,
    "grad_norm": 1.5,
    "tokens": 600,
    "seconds": {"stream": 0.5, "rollout": 1.5, "update": 1.0},
}


class Terminal:
    """The far end of a pseudo-terminal: everything that was written to `stream`."""

    def __init__(self) -> None:
        self._end, inner = pty.openpty()
        self.stream = os.fdopen(inner, "w")

    def read(self) -> str:
        self.stream.close()
        parts = []
        while True:
            try:
                part = os.read(self._end, 65536)
            except OSError:  # all was read, and the other end is closed
                break
            if not part:
                break
            parts.append(part)
        os.close(self._end)
        return b"".join(parts).decode()


def test_the_line_names_what_a_step_has() -> None:
    assert line_of([ROW], 400, 754) == (
        "step 7/400  reward 0.500  dead 12%  std 0.250  grad 1.5  200 tok/s  "
        "stream 0.50 s  rollout 1.50 s  update 1.00 s  13 min left"
    )
    dead = ROW | {"grad_norm": None, "seconds": {"stream": 0.5}}
    assert "grad –" in line_of([dead], 400, None)
    assert "rollout" not in line_of([dead], 400, None)
    assert line_of([{"step": 3, "loss": 2.0, "grad_norm": 1.0, "tokens": 5.0}], 9, None) == "step 3/9  loss 2  grad 1"


def test_several_rows_are_shown_by_their_means() -> None:
    rows = [ROW | {"step": 1, "reward_mean": 0.0, "grad_norm": None}, ROW | {"step": 2, "reward_mean": 1.0}]
    line = line_of(rows, 2, 100)
    assert line.startswith("steps 1-2/2  reward 0.500")
    assert "grad 1.5 " in line
    assert "left" not in line


def test_on_a_terminal_one_line_is_rewritten() -> None:
    terminal = Terminal()
    with LiveLine(3, stream=terminal.stream) as live:
        for step in (1, 2):
            live.show(ROW | {"step": step})
        live.note("checkpoint saved")
        live.show(ROW | {"step": 3})
    text = terminal.read()
    assert text.count("\n") == 2  # behind the remark, and at the end
    parts = text.split("\r\x1b[K")
    assert [part[:8] for part in parts] == ["", "step 1/3", "step 2/3", "checkpoi", "step 3/3"]
    assert parts[3].splitlines()[1].startswith("step 2/3")
    assert all(len(line) < 80 for part in parts for line in part.splitlines())


def test_elsewhere_a_line_comes_now_and_then_and_none_is_lost() -> None:
    stream = io.StringIO()
    with LiveLine(100, every=4, stream=stream) as live:
        for step in range(1, 11):
            live.show(ROW | {"step": step})
        live.note("a remark")
    begun = [line.split("  ")[0] for line in stream.getvalue().splitlines()]
    assert begun == ["steps 1-4/100", "steps 5-8/100", "a remark", "steps 9-10/100"]
    assert "\r" not in stream.getvalue()


def test_the_time_left_goes_by_the_clock_of_this_start() -> None:
    now = [0.0]
    stream = io.StringIO()
    live = LiveLine(30, every=1, stream=stream, clock=lambda: now[0])
    now[0] = 10.0
    live.show(ROW | {"step": 21})  # resumed at 20: one step took 10 s, nine are left
    assert stream.getvalue().rstrip().endswith("90 s left") or stream.getvalue().rstrip().endswith("2 min left")


def test_a_remark_of_a_signal_handler_waits_for_no_lock_and_is_not_lost() -> None:
    class Interrupted(io.StringIO):
        """A stream in the middle of whose first line a signal comes."""

        live: LiveLine
        signalled = False

        def write(self, text: str) -> int:
            if not self.signalled:
                self.signalled = True
                self.live.note("stopping after this step")
            return super().write(text)

    stream = Interrupted()
    stream.live = LiveLine(100, every=1, stream=stream)
    stream.live.show(ROW)
    assert [line.split("  ")[0] for line in stream.getvalue().splitlines()] == [
        "step 7/100",
        "stopping after this step",
    ]


def test_nothing_is_shown_where_nothing_is_to_be_shown() -> None:
    stream = io.StringIO()
    with LiveLine(3, shown=False, every=1, stream=stream) as live:
        live.show(ROW)
        live.note("text")
    assert stream.getvalue() == ""


def test_a_stream_that_nobody_reads_does_not_stop_a_run() -> None:
    reading, writing = os.pipe()
    stream = os.fdopen(writing, "w")
    with LiveLine(100, every=1, stream=stream) as live:
        live.show(ROW)
        assert os.read(reading, 8) == b"step 7/1"
        os.close(reading)
        for step in range(8, 20):
            live.show(ROW | {"step": step})
    with pytest.raises(BrokenPipeError):  # what the line was spared
        stream.close()


@given(st.floats(0.01, 1e7))
def test_short_figures_are_short_and_near(value: float) -> None:
    text = short(value)
    read = float(text.removesuffix("k")) * (1000 if text.endswith("k") else 1)
    assert len(text) <= 6
    assert abs(read - value) <= max(0.05 + 1e-9, 0.06 * value)


def test_time_spans_have_two_units() -> None:
    spans = [duration(s) for s in (0.4, 89, 90, 3540, 3600, 7500, 90000)]
    assert spans == ["0 s", "89 s", "2 min", "59 min", "1 h 00 min", "2 h 05 min", "1 d 01 h"]
