"""Windows of a text: they fit, they lose nothing, and they are split where a text may be."""

import itertools
import re

import open_clip
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.windows import cut_tokens, option_windows, split_text

TOKENIZER = open_clip.SimpleTokenizer()


def characters(text: str) -> int:
    """Tokens of a model that reads characters, between a start and an end."""
    return len(re.sub(r"\s", "", text)) + 2


def words(text: str) -> int:
    return len(text.split()) + 2


def subwords(text: str) -> int:
    return len(TOKENIZER.encode(text)) + 2


def question_of(tokens: int) -> str:
    """A question of exactly so many tokens, start and end not counted: sentences of nine words."""
    pieces = list(
        itertools.islice(itertools.cycle(["The", "man", "opens", "a", "red", "door", "and", "walks", "away."]), tokens)
    )
    while (over := sum(len(TOKENIZER.encode(piece)) for piece in pieces) - tokens) > 0:
        del pieces[-over:]
    return " ".join(pieces + ["so"] * -over)


@given(st.text(alphabet="aB .?;:)(\n。", max_size=160), st.integers(3, 12))
def test_windows_fit_and_lose_nothing(text: str, context: int) -> None:
    windows = split_text(text, characters, context)
    assert "".join("".join(windows).split()) == "".join(text.split())
    assert all(characters(window) <= context for window in windows)
    assert all(window and window == window.strip() for window in windows) or windows == [""]
    assert cut_tokens(windows, characters, context) == 0


@given(st.lists(st.sampled_from(["red", "door?", "B.", "(C)", "x"]), max_size=40), st.integers(3, 9))
def test_words_that_fit_stay_whole(some: list[str], context: int) -> None:
    assert " ".join(split_text(" ".join(some), words, context)).split() == some


def test_a_text_that_fits_is_one_window() -> None:
    assert split_text("  What is it? A. red\nB. blue ", words, 9) == ["What is it? A. red\nB. blue"]
    assert split_text(" \n ", words, 9) == [""]


def test_sentences_and_options_are_the_borders() -> None:
    text = "He comes in. What does he hold? A. a red cup B. a book (C) Lou's hat"
    assert split_text(text, words, 7) == [
        "He comes in.",
        "What does he hold?",
        "A. a red cup",
        "B. a book",
        "(C) Lou's hat",
    ]
    assert split_text(text, words, 9) == [
        "He comes in. What does he hold?",
        "A. a red cup B. a book",
        "(C) Lou's hat",
    ]
    assert split_text("他来了。他拿着什么？红色", characters, 8) == ["他来了。", "他拿着什么？", "红色"]


def test_a_word_longer_than_the_context_is_split_within() -> None:
    assert split_text("see abcdefghij now", characters, 6) == ["see", "abcd", "efgh", "ij", "now"]
    windows = split_text("x" * 400, subwords, 32)
    assert "".join(windows) == "x" * 400
    assert cut_tokens(windows, subwords, 32) == 0


def test_a_character_that_never_fits_is_counted_as_cut() -> None:
    windows = split_text("ab", lambda text: 5 * len(text), 3)
    assert windows == ["a", "b"]
    assert cut_tokens(windows, lambda text: 5 * len(text), 3) == 4


@pytest.mark.parametrize("context", [32, 64, 77])
@pytest.mark.parametrize("tokens", [20, 77, 300, 2000])
def test_every_token_of_a_question_is_in_a_window(tokens: int, context: int) -> None:
    question = question_of(tokens)
    windows = split_text(question, subwords, context)
    assert len(TOKENIZER.encode(question)) == tokens
    assert [t for window in windows for t in TOKENIZER.encode(window)] == TOKENIZER.encode(question)
    assert cut_tokens(windows, subwords, context) == 0
    assert max(map(subwords, windows)) <= context
    assert len(windows) <= 2 * -(-tokens // (context - 2))  # greedy: two windows in a row hold more than one context


def test_options_stand_behind_the_question_where_both_fit() -> None:
    assert option_windows("what is it?", [], words, 7) == []
    assert option_windows(" which one? ", ["a cup ", "a big red cup"], words, 7) == [
        "which one? a cup",
        "a big red cup",
    ]
    assert option_windows("which one?", ["one two three four five six"], words, 7) == ["one two three four five", "six"]
