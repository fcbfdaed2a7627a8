"""The parser: it reads what models write, says why when it cannot, and never guesses, raises or takes long."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.parsing import Parsed, parse_answer, read_format
from pipeline.readers import read_span
from pipeline.schemas import TASKS

OPTIONS = ["red", "blue", "dark green", "a dog"]
OPTIONS_OF = {task: OPTIONS if task in ("choice", "grounded_choice") else [] for task in TASKS}
ERRORS = {"", "no answer", "empty answer", "no option", "no number", "no span", "no option and no span"}
# Text made of the parser's own vocabulary reaches deeper than random characters do.
PIECES = [
    *("<think>", "</think>", "<answer>", "</answer>", "</ans", "A", "B", "(B)", "b.", "blue", "3.2", "4.5s", "1:05"),
    *("1:75", "-", " to ", ", ", "[", "]", " ", "\n", "9" * 400, "1e999", "three", "-2", "é", "٣", "**", "```json\n"),
    *(
        "The answer is ",
        "Answer:",
        "答案：",
        "\\boxed{",
        "{",
        "}",
        '{"answer": ',
        '"start_time": ',
        "start",
        "end",
        '"',
    ),
    *("1e400", "NaN", "Option ", " or ", ".", "[[[[", "because"),
]
pieces = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)
texts = st.one_of(st.text(max_size=80), pieces, pieces.map(lambda t: f"<think>x</think><answer>{t}</answer>"))
ends = st.floats(0, 1e6)


def block(answer: str) -> str:
    return f"<think> because </think> <answer> {answer} </answer>"


@given(texts, st.sampled_from(TASKS))
def test_no_text_raises_and_an_error_stands_for_what_is_missing(text: str, task: str) -> None:
    found = parse_answer(text, task, OPTIONS_OF[task])
    assert found.error in ERRORS
    wanted = {"choice": ["letter"], "number": ["number"], "open": ["text"], "grounding": ["span"]}
    parts = [getattr(found, name) for name in wanted.get(task, ["letter", "span"])]
    assert bool(found.error) == (None in parts)
    assert found.span is None or 0 <= found.span[0] <= found.span[1] < float("inf")
    assert found.letter is None or found.letter in "ABCD"


@given(pieces, st.sampled_from(TASKS))
def test_a_closed_block_decides_whatever_stands_before_it(before: str, task: str) -> None:
    answer = {"number": "3", "open": "blue", "grounding": "3 - 4"}.get(task, "B 3 - 4" if "_" in task else "B")
    options = OPTIONS_OF[task]
    alone, after = (parse_answer(text + f"<answer>{answer}</answer>", task, options) for text in ("", before))
    assert (after.letter, after.number, after.span, after.text) == (
        *(alone.letter, alone.number, alone.span, alone.text),
    )


@given(texts, st.sampled_from(TASKS))
def test_leniency_never_touches_the_format(text: str, task: str) -> None:
    assert parse_answer(text, task, OPTIONS_OF[task]).format_ok == read_format(text)


WAYS_TO_NAME_B = [
    *("B", "(B)", "B.", "B. blue", "blue", " b ", "B)", "[B]", "B: blue", "Blue.", "B blue", "(B) blue", "B) blue"),
    *("**B**", "**B.** blue", "`B`", "__B__", "Option B", "option (B)", "Option B: blue", "选项B", "\\boxed{B}"),
    *("$\\boxed{\\text{B}}$", "The answer is B", "the answer is **B**.", "Answer: B", "**Answer:** (B)", "Answer:B"),
    *("### Answer\n\n**B**", "Final answer: B. blue", "The correct option is (B).", "The correct choice is B because"),
    *("答案：B", "答案是 B", "正确答案为B。", "The answer should be B", "The answer is B, not A", "Answer: Option B"),
    *('{"answer": "B"}', '```json\n{"answer": "B"}\n```', "B\n\nExplanation: it is the one that moves."),
]


@pytest.mark.parametrize("text", WAYS_TO_NAME_B)
@pytest.mark.parametrize("frame", ["{}", "<answer>{}</answer>", "<answer>{}", "<answer>{}</ans", "<think>A</think>{}"])
def test_ways_to_name_an_option(text: str, frame: str) -> None:
    found = parse_answer(frame.replace("{}", text), "choice", OPTIONS)
    assert (found.letter, found.error) == ("B", "")


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("<answer>A</answer><answer>B</answer>", "B"),  # the last closed block
        ("<answer>B</answer> The answer is A. \\boxed{A}", "B"),  # a block before all else
        ("\\boxed{A} so <answer>B", "B"),  # an unclosed one before a box
        ("The answer is A. \\boxed{A} or rather \\boxed{B}", "B"),  # the last box, before a statement
        ("<think>\\boxed{A}</think> The answer is B", "B"),  # what follows the thoughts before the thoughts
        ("<think>The answer is A</think>B", "B"),
        ("The answer is A. No, the answer is B.", "B"),  # the last statement
        ("The answer is B. Is the answer clear? The answer is in the first scene.", "B"),  # that can be read
        ("A\n\nThe answer is B", "B"),  # a statement before a line
        ("<think>so the answer is B. But", "B"),  # thoughts that were cut, with a statement
        ("<think>hm, \\boxed{B}", "B"),
        ("It moves to the left.\n\nB", "B"),  # the last line
    ],
)
def test_where_an_answer_stands(text: str, letter: str) -> None:
    assert parse_answer(text, "choice", OPTIONS).letter == letter


@pytest.mark.parametrize("text", ["E", "F. blue?", "a cat", "B or C", "purple", "The B", "AB", "\\boxed{42}", "?"])
def test_what_an_answer_block_names_no_option_by(text: str) -> None:
    assert parse_answer(block(text), "choice", OPTIONS).error == "no option"


@pytest.mark.parametrize(
    "text",
    [
        *("", "   ", "The man walks.", "A man walks to a dog", "I think it is blue.", "B or C", "A. red\nB. blue"),
        *("The answer is B or C", "The answer is a mystery", "The answer is not clear", "Is the answer A or B?"),
        *("A) is wrong since it moved. B) is right.", "<think>B", "<think>I see (B) blue", "\\boxed{B", "<think>"),
    ],
)
def test_no_letter_is_picked_out_of_prose(text: str) -> None:
    found = parse_answer(text, "choice", OPTIONS)
    assert found == Parsed(error="no answer")


def test_an_empty_block_is_an_empty_answer() -> None:
    for text in ("<answer></answer>", "The answer is B <answer> </answer>", "<think>x</think><answer>"):
        assert parse_answer(text, "choice", OPTIONS).error == "empty answer"


def test_an_option_that_starts_with_the_word_a_is_not_letter_a() -> None:
    for text in ("a dog", "A dog", "The answer is a dog.", "Answer: A dog", "Option D", "D. A dog"):
        assert parse_answer(block(text), "choice", OPTIONS).letter == "D"
        assert parse_answer(text, "choice", OPTIONS).letter == "D"


WAYS_TO_GIVE_A_SPAN = [
    *("3.2 - 4.5", "3.2 to 4.5", "[3.2, 4.5]", "3.2s - 4.5s", "3.2-4.5", "4.5 - 3.2", "(3.2, 4.5)", "3.2 – 4.5"),
    *("from 3.2 to 4.5 seconds", "0:03.2 - 00:04.5", "0:00:03.2 to 4.5 sec.", "3.2 seconds to 4.5 seconds"),
    *("from 3.2s to 4.5s", "00:03.2 - 00:04.5", "3.2 sec. - 4.5 sec.", "3.2 → 4.5", "从3.2秒到4.5秒", "**3.2 - 4.5**"),
    *('{"start_time": "3.2", "end_time": "4.5"}', '{"start_time": 3.2, "end_time": 4.5}', '{"start":3.2,"end":4.5}'),
    *('```json\n{"start_time": "3.2", "end_time": "4.5"}\n```', "{'start_time': 3.2, 'end_time': 4.5}"),
    *("starts at 3.2 seconds and ends at 4.5 seconds", "Start: 3.2s, End: 4.5s", "Start time: 3.2\nEnd time: 4.5"),
    *("The event happens from 3.2 to 4.5 seconds.", "The given query happens in 3.2 - 4.5 seconds."),
    *("final answer: 3.2 - 4.5", "答案：3.2秒 - 4.5秒", "\\boxed{[3.2, 4.5]}", '{"answer": "3.2 - 4.5"}'),
]


@pytest.mark.parametrize("text", WAYS_TO_GIVE_A_SPAN)
def test_ways_to_give_a_span(text: str) -> None:
    assert read_span(text) == pytest.approx((3.2, 4.5))
    for whole in (text, block(text), f"<answer>{text}", f"<think>1 - 2</think>{text}"):
        found = parse_answer(whole, "grounding", [])
        assert (found.span, found.error) == (pytest.approx((3.2, 4.5)), "")


@pytest.mark.parametrize("text", ["3.2", "soon", "1 - 2 or 5 - 6", "x3 - 4", "1:75 - 2:80", "9" * 400 + " - 2"])
def test_what_is_no_single_span(text: str) -> None:
    assert parse_answer(block(text), "grounding", []).error == "no span"


@pytest.mark.parametrize("text", ["The man runs 3 - 4 times", "3 - 4 or 5 - 6", "<think>3 - 4", "from 1 to 3 men walk"])
def test_no_span_is_picked_out_of_prose(text: str) -> None:
    assert parse_answer(text, "grounding", []).error == "no answer"


@given(st.tuples(ends, ends))
def test_a_written_span_is_read_back(span: tuple[float, float]) -> None:
    wanted = pytest.approx(sorted((round(span[0], 2), round(span[1], 2))), abs=1e-6)
    a, b = f"{span[0]:.2f}", f"{span[1]:.2f}"
    for written in (f"{a} - {b}", f"from {a}s to {b}s", f'{{"start_time": "{a}", "end_time": "{b}"}}'):
        assert read_span(written) == wanted


@pytest.mark.parametrize(
    "text",
    [
        *("3", "3.0", "three", "about 3 cars", "3.", "**3**", "3 cars", "$3$", "The answer is 3", "Answer: 3 cars"),
        *(
            "There are 3 cars.",
            "\\boxed{3}",
            "答案是3个",
            "3个",
            '{"answer": 3}',
            "So the answer is $\\boxed{3}$ metres",
        ),
        *("Final answer: **3**", "The answer is three.", "The cars are red.\n\nAnswer: 3", "3\n\nThey are red."),
    ],
)
def test_ways_to_give_a_number(text: str) -> None:
    for whole in (text, block(text), f"<answer>{text}", f"<think>5</think>{text}"):
        found = parse_answer(whole, "number", [])
        assert (found.number, found.error) == (3.0, "")


@pytest.mark.parametrize(
    "text", ["3 or 4", "The answer is 12 or 3", "between 3 and 4", "In 2 frames there are 3 cars", "many", "<think>3"]
)
def test_no_number_is_picked_out_of_prose(text: str) -> None:
    assert parse_answer(text, "number", []).error == "no answer"


def test_an_answer_without_a_number() -> None:
    for text in ("many", "-", "9" * 400):
        assert parse_answer(block(text), "number", []).error == "no number"


@pytest.mark.parametrize(
    "text",
    [
        *("B 3.0 - 4.0", "B. blue, 3 - 4", "(B) [3.0, 4.0]", "blue 3.0s to 4.0s", "B 0:03 - 0:04", "[3, 4] B"),
        *("Answer: B\nTime: 3.0 - 4.0", "Answer: B, 3 - 4", "The answer is B, from 3 to 4 seconds.", "**B** (3 - 4)"),
        *('{"answer": "B", "start_time": 3, "end_time": 4}', "B\nTime: 3.0s - 4.0s", "\\boxed{B, 3 - 4}"),
        *("Answer: (B) blue\nEvidence: from 3 to 4 seconds", "Option: B; Time: 3 - 4", "B, starts at 3 and ends at 4"),
    ],
)
def test_ways_to_give_a_letter_and_a_span(text: str) -> None:
    for whole in (text, block(text), f"<answer>{text}"):
        found = parse_answer(whole, "grounded_choice", OPTIONS)
        assert (found.letter, found.span, found.error) == ("B", (3.0, 4.0), "")


def test_half_of_a_grounded_answer_is_half_read() -> None:
    for text, error in (("B", "no span"), ("3 - 4", "no option"), ("hm", "no option and no span")):
        assert parse_answer(block(text), "grounded_choice", OPTIONS).error == error


@pytest.mark.parametrize(
    "text",
    [
        *("a red ball", "The answer is a red ball", "Answer: a red ball", "**Answer:** a red ball"),
        *('{"answer": "a red ball"}', "\\boxed{a red ball}", "Thoughts first.\nFinal answer: a red ball"),
    ],
)
def test_ways_to_give_an_open_answer(text: str) -> None:
    for whole in (text, f"<answer>{text}", f"<think>x</think>{text}"):
        if not whole.startswith("<answer>") or not text.startswith(("The ", "Answer", "**", "Thoughts")):
            assert parse_answer(whole, "open", []).text == "a red ball"


def test_an_open_answer_that_was_not_reached() -> None:
    assert parse_answer("<think>the ball is", "open", []).error == "no answer"
    assert parse_answer("The man's answer is no", "open", []).text == "The man's answer is no"


def test_the_format_is_one_think_and_one_answer() -> None:
    assert read_format("<think>a</think>\n<answer>B</answer>\n")
    bad = (
        "<answer>B</answer>",
        "x<think>a</think><answer>B</answer>",
        block("B") * 2,
        "<think>a</think><answer>B",
        "B",
    )
    for text in bad:
        assert not read_format(text)
        assert parse_answer(text, "choice", OPTIONS).letter == "B"


def test_an_unknown_task_is_the_samples_fault() -> None:
    with pytest.raises(ValueError, match="unknown task 'essay'"):
        parse_answer("B", "essay", [])


HOSTILE = [
    *(" ", "1 ", "9", "1 - ", "<answer>", "(", "A ", "1:1:", "9,999", "the answer is ", "\\boxed{", "{}", "[[1,", "<"),
    *("start: 1 ", "Option ", "\n", "A\n", "</think>", "1 to 2 or ", "answer is B because "),
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_long_nonsense_is_read_in_no_time(piece: str) -> None:
    for task in TASKS:
        for frame in ("{}", "<answer>{}</answer>"):
            text = frame.replace("{}", "1" + piece * (200_000 // len(piece)))
            begun = time.process_time()
            parse_answer(text, task, OPTIONS_OF[task])
            assert time.process_time() - begun < 1.0


@settings(max_examples=30)
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=3).map("".join), st.sampled_from(TASKS))
def test_repeated_vocabulary_is_read_in_no_time(piece: str, task: str) -> None:
    text = piece * (100_000 // len(piece))
    begun = time.process_time()
    parse_answer(text, task, OPTIONS_OF[task])
    assert time.process_time() - begun < 1.0
