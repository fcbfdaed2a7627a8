"""What the formats share: answers by place, text or letter, questions without templates, values as they come."""

import math

import pytest

from pipeline import sources
from pipeline.sources import Rejected
from pipeline.sources.answers import apart, by_place, by_text, question_alone
from pipeline.sources.draft import make_draft
from pipeline.sources.values import letters_of, part, seconds, spans, text, texts

RED_BLUE = ("red", "blue")


@pytest.mark.parametrize(
    ("asked", "question"),
    [
        ("Is it red?", "Is it red?"),
        ("Is it red?\nPlease answer yes or no:", "Is it red?"),
        ("Is it red? Answer with the option's letter from the given choices directly.", "Is it red?"),
        ("Answer the question using a single word or phrase.\nIs it red?", "Is it red?"),
        ("Is it red?\nPlease directly give the best option:", "Is it red?"),
        ("Is it red? Please name the colour in French.", "Is it red? Please name the colour in French."),
        ("It is a kite. Is it red? Only give the best option.", "It is a kite. Is it red?"),
        ("Choose the correct options about kites. They fly.", "Choose the correct options about kites. They fly."),
        ("Select the best answer to the following multiple-choice question based on the video.\nWhy?", "Why?"),
        ("Why? Respond with only the letter (A, B, C, or D) of the correct option.", "Why?"),
        ("Please choose one of the options.", "Please choose one of the options."),
        ("", ""),
    ],
)
def test_what_says_how_to_answer_is_no_part_of_the_question(asked: str, question: str) -> None:
    assert question_alone(asked) == question
    assert question_alone(question) == question


def test_options_inside_a_question() -> None:
    assert apart("Which?\nA. red\nB. blue") == ("Which?", [("A. red", "red"), ("B. blue", "blue")])
    assert apart("Which?\n(A) red\n(B) blue")[1] == [("(A) red", "red"), ("(B) blue", "blue")]
    assert apart("Of these\n1. we have many\nWhich?\nOption 1: red\nOption 2: blue")[0].endswith("Which?")
    for whole in ("Which?", "Which?\nA. red", "Which?\nB. red\nA. blue", "Which?\nA. red\nB. blue\nSay it."):
        assert apart(whole) == (whole, [])


def test_an_answer_by_place_follows_letters_that_are_out_of_order() -> None:
    options = ["B. blue", "A. red"]
    made = make_draft(
        {},
        dataset="d",
        row_id="0",
        video="v",
        task="choice",
        question="q",
        options=options,
        answer=by_place(options, 0),
    )
    assert (made.options, made.answer) == (RED_BLUE, "B")


def test_an_answer_by_text_is_no_letter() -> None:
    assert by_text(["B", "A"], "A") == "B"
    assert by_text(["", "the lamp", "A lamp"], "a lamp.") == "C"
    with pytest.raises(Rejected, match="answer is"):
        by_text(["red", "blue"], "A")


@pytest.mark.parametrize(("number", "reason"), [(1, "fewer than two options"), (26, ""), (27, "too many options")])
def test_there_are_as_many_options_as_letters(number: int, reason: str) -> None:
    row = {"video": "v", "question": "q", "options": [f"the {place}." for place in range(number)], "answer": "the 0."}
    (outcome,) = sources.find("generic").drafts([row])
    assert (outcome.reason if isinstance(outcome, Rejected) else "") == reason


def test_letters_that_options_carry() -> None:
    assert letters_of(["A. red", "B. blue"]) == ["A", "B"]
    assert letters_of(["B) blue", "(A) red"]) == ["B", "A"]
    assert letters_of(["A. red", "", "C. blue"]) == ["A", "C"]
    assert letters_of(["E. coli", "A. thaliana"]) is None
    assert letters_of(["A. red", "blue"]) is letters_of(["A.", "B."]) is letters_of([]) is None


def test_values() -> None:
    assert texts('["a", "b"]') == texts("a|b") == texts({"B": "b", "A": "a"}) == texts(("a", " b ")) == ["a", "b"]
    assert texts(["a", None]) == ["a", ""] and texts(" ") == texts(None) == texts(float("nan")) == []
    assert spans([1, 2]) == spans([[1, 2]]) == spans("1-2") == spans("[1, 2]") == ((1.0, 2.0),)
    assert spans(None) == spans("") == spans([]) == ()
    assert part(1, "2") == (1.0, 2.0) and part(None, 2) is None and seconds(" ") is None
    assert text(None) == text(float("nan")) == "" and text(" a ") == "a" and text(3) == "3"
    for broken in (
        [[1, 2, 3]],
        ["12"],
        "soon",
        [[1, None]],
        {"a": 1},
        [[1, "x"]],
        b"ab",
        3,
        [[True, 2]],
        [[1, math.inf]],
        [[1, "nan"]],
    ):
        with pytest.raises(ValueError, match="span is"):
            spans(broken)
