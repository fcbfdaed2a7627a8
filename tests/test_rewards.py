"""The answer parser and the reward parts."""

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.rewards import parse_answer, read_format, read_span, score, temporal_iou
from pipeline.schemas import TASKS

OPTIONS = ["red", "blue", "dark green", "a dog"]
SAMPLES = {
    "choice": (OPTIONS, "B", []),
    "number": ([], "3", []),
    "open": ([], "blue", []),
    "grounding": ([], "", [[1.0, 2.0]]),
    "grounded_choice": (OPTIONS, "B", [[1.0, 2.0]]),
}
ends = st.floats(0, 1e6)
spans = st.tuples(ends, ends)
# Text made of the parser's own vocabulary reaches deeper than random characters do.
pieces = st.lists(
    st.sampled_from(
        [
            *("<think>", "</think>", "<answer>", "</answer>", "A", "B", "(B)", "b.", "blue", "3.2", "4.5s", "1:05"),
            *("1:75", "-", " to ", ", ", "[", "]", " ", "\n", "9" * 400, "1e999", "three", "-2", "é", "٣"),
        ]
    ),
    max_size=12,
).map("".join)
texts = st.one_of(st.text(max_size=80), pieces, pieces.map(lambda t: f"<think>x</think><answer>{t}</answer>"))


def respond(answer: str) -> str:
    return f"<think> because </think> <answer> {answer} </answer>"


@given(texts, st.sampled_from(TASKS))
def test_no_response_raises_and_all_parts_are_shares(text: str, task: str) -> None:
    options, answer, true = SAMPLES[task]
    reward = score(text, task, options, answer, true)
    for part in (reward.reward, reward.format, reward.accuracy, reward.iou):
        assert part is None or 0.0 <= part <= 1.0
    assert (reward.accuracy is None) == (task == "grounding")
    assert (reward.iou is None) == (task not in ("grounding", "grounded_choice"))


@pytest.mark.parametrize(
    "text", ["B", "(B)", "B.", "B. blue", "blue", " b ", "B)", "[B]", "B: blue", "Blue.", "B blue", "(B) blue"]
)
def test_ways_to_name_an_option(text: str) -> None:
    assert score(respond(text), "choice", OPTIONS, "B", []).reward == 1.0


@pytest.mark.parametrize("text", ["", "E", "F. blue?", "a cat", "B or C", "purple", "The B", "AB"])
def test_what_names_no_option_is_wrong_and_counted(text: str) -> None:
    reward = score(respond(text), "choice", OPTIONS, "A", [])
    assert reward.reward == 0.0
    assert reward.parse_error


def test_an_option_that_starts_with_the_word_a_is_not_letter_a() -> None:
    assert parse_answer(respond("a dog"), "choice", OPTIONS).letter == "D"
    assert parse_answer(respond("A dog"), "choice", OPTIONS).letter == "D"


def test_options_with_the_same_text_are_the_same_option() -> None:
    assert score(respond("yes"), "choice", ["yes", "no", "yes"], "C", []).reward == 1.0


@pytest.mark.parametrize(
    "text",
    [
        *("3.2 - 4.5", "3.2 to 4.5", "[3.2, 4.5]", "3.2s - 4.5s", "3.2-4.5", "4.5 - 3.2", "(3.2, 4.5)", "3.2 – 4.5"),
        *("from 3.2 to 4.5 seconds", "0:03.2 - 00:04.5", "0:00:03.2 to 4.5 sec."),
    ],
)
def test_ways_to_give_a_span(text: str) -> None:
    assert read_span(text) == pytest.approx((3.2, 4.5))
    assert score(respond(text), "grounding", [], "", [[9.0, 10.0], [3.2, 4.5]]).reward == pytest.approx(1.0)


@pytest.mark.parametrize("text", ["3.2", "soon", "1 - 2 or 5 - 6", "x3 - 4", "1:75 - 2:80", "9" * 400 + " - 2"])
def test_what_is_no_single_span(text: str) -> None:
    reward = score(respond(text), "grounding", [], "", [[3.2, 4.5]])
    assert (reward.iou, reward.reward, reward.parse_error) == (0.0, 0.0, "no span")


@pytest.mark.parametrize(
    "text", ["B 3.0 - 4.0", "B. blue, 3 - 4", "(B) [3.0, 4.0]", "blue 3.0s to 4.0s", "B 0:03 - 0:04"]
)
def test_letter_and_span(text: str) -> None:
    reward = score(respond(text), "grounded_choice", OPTIONS, "B", [[3.0, 4.0]])
    assert (reward.accuracy, reward.iou, reward.reward, reward.parse_error) == (1.0, 1.0, 1.0, "")


def test_half_of_a_grounded_answer_keeps_its_half() -> None:
    only_letter = score(respond("B"), "grounded_choice", OPTIONS, "B", [[3.0, 4.0]])
    only_span = score(respond("3 - 4"), "grounded_choice", OPTIONS, "B", [[3.0, 4.0]])
    assert (only_letter.reward, only_letter.parse_error) == (0.5, "no span")
    assert (only_span.reward, only_span.parse_error) == (0.5, "no option")


@pytest.mark.parametrize(
    ("text", "right"), [("3", 1), ("3.0", 1), ("three", 1), ("about 3 cars", 1), ("4", 0), ("none", 0)]
)
def test_numbers(text: str, right: float) -> None:
    assert score(respond(text), "number", [], "3", []).reward == right


def test_numbers_with_thousands_and_signs() -> None:
    assert score(respond("1,234.5"), "number", [], "1234.5", []).reward == 1.0
    assert score(respond("-2"), "number", [], "2", []).reward == 0.0


def test_the_format_is_one_think_and_one_answer_and_never_enters_the_reward() -> None:
    assert read_format("<think>a</think>\n<answer>B</answer>\n")
    bad = ("<answer>B</answer>", "x<think>a</think><answer>B</answer>", respond("B") * 2, "<think>a</think><answer>B")
    for text in bad:
        assert not read_format(text)
    bare = score("<answer>B</answer>", "choice", OPTIONS, "B", [])
    assert (bare.reward, bare.format) == (1.0, 0.0)
    unreadable = score(respond("perhaps"), "choice", OPTIONS, "B", [])
    assert (unreadable.reward, unreadable.format) == (0.0, 1.0)


def test_without_an_answer_block_nothing_is_guessed() -> None:
    assert parse_answer("B", "choice", OPTIONS).error == "no <answer> block"
    assert parse_answer("<think>B</think><answer>B", "choice", OPTIONS).letter is None


def test_the_last_answer_counts() -> None:
    assert parse_answer("<answer>A</answer><answer>B</answer>", "choice", OPTIONS).letter == "B"


@given(spans, spans)
def test_iou_is_symmetric_a_share_and_1_only_for_equals(a: tuple[float, float], b: tuple[float, float]) -> None:
    iou = temporal_iou(a, b)
    assert iou == temporal_iou(b, a)
    assert 0.0 <= iou <= 1.0
    assert (iou == 1.0) == (sorted(a) == sorted(b))


@given(spans, spans)
def test_iou_is_intersection_over_the_sum_minus_intersection(a: tuple[float, float], b: tuple[float, float]) -> None:
    (a0, a1), (b0, b1) = sorted(a), sorted(b)
    inside = max(0.0, min(a1, b1) - max(a0, b0))
    union = (a1 - a0) + (b1 - b0) - inside
    if union > 1e-3:
        assert temporal_iou(a, b) == pytest.approx(inside / union, abs=1e-6)


@given(spans)
def test_a_written_span_is_read_back(span: tuple[float, float]) -> None:
    written = f"{span[0]:.2f} - {span[1]:.2f}"
    assert read_span(written) == pytest.approx(sorted((round(span[0], 2), round(span[1], 2))), abs=1e-6)


@pytest.mark.parametrize(
    ("task", "options", "answer", "true"),
    [
        *(("choice", OPTIONS, "E", []), ("choice", OPTIONS, "blue", []), ("number", [], "many", [])),
        *(("grounding", [], "", []), ("open", [], " ", []), ("grounded_choice", OPTIONS, "B", [])),
    ],
)
def test_a_bad_sample_raises(task: str, options: list[str], answer: str, true: list[list[float]]) -> None:
    with pytest.raises(ValueError, match=r"answer|span"):
        score(respond("B"), task, options, answer, true)


def test_iou_of_what_is_not_finite_raises() -> None:
    with pytest.raises(ValueError, match="finite"):
        temporal_iou((0.0, math.inf), (0.0, 1.0))


@pytest.mark.parametrize("piece", [" ", "1 ", "9", "1 - ", "<answer>", "(", "A ", "1:1:", ",", "9,999"])
@pytest.mark.parametrize("task", TASKS)
def test_long_nonsense_is_read_in_no_time(piece: str, task: str) -> None:
    options, answer, true = SAMPLES[task]
    begun = time.process_time()
    score(respond("1" + piece * 20_000), task, options, answer, true)
    assert time.process_time() - begun < 2.0
