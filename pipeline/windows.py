"""A question as windows that fit the context of a model's text tower: nothing of it is cut."""

import re
from collections.abc import Callable, Iterator, Sequence

TEXTS = ("question", "question+options")

# Where a text may be split, the best places first: line ends, ends of sentences and beginnings of options ("B. ...",
# "(B) ..."), but not behind an option's own letter; then between words.
_BORDERS = (
    re.compile(r"\s*\n\s*|(?<=[.!?;:])(?<!\b[A-Z][.:])\s+|\s+(?=\(?[A-Z][.):]\s)|(?<=[。！？；])\s*"),
    re.compile(r"\s+"),
)

Count = Callable[[str], int]
_Span = tuple[int, int]


def split_text(text: str, count: Count, context: int) -> list[str]:
    """Split a text into windows that fit a model's context: at sentences and options, in long ones at words, and
    inside a word only where that word alone does not fit.

    Windows are pieces of the text, in its order; together they hold all of it but the white space between them.

    Args:
        text: any text.
        count: tokens of a text, special tokens included.
        context: the most tokens that one window may have.

    Returns:
        At least one window; the empty text is one.
    """
    whole = text.strip()
    windows: list[_Span] = []
    for start, end in _pieces(whole, (0, len(whole)), 0, count, context):
        if windows and count(whole[windows[-1][0] : end]) <= context:
            windows[-1] = (windows[-1][0], end)
        else:
            windows.append((start, end))
    return [whole[start:end] for start, end in windows] or [""]


def option_windows(question: str, options: Sequence[str], count: Count, context: int) -> list[str]:
    """One window for each option: behind the whole question, or by itself where both do not fit.

    Args:
        question: the stem.
        options: texts without letters.
        count, context: as for `split_text`.
    """
    windows: list[str] = []
    for option in options:
        both = f"{question.strip()} {option.strip()}"
        windows += [both] if count(both) <= context else split_text(option, count, context)
    return windows


def cut_tokens(windows: Sequence[str], count: Count, context: int) -> int:
    """Tokens that the model would not see: 0 unless a single character is longer than the context."""
    return sum(max(0, count(window) - context) for window in windows)


def _pieces(text: str, span: _Span, level: int, count: Count, context: int) -> Iterator[_Span]:
    """Spans of a text that fit, as large as the borders allow."""
    start, end = span
    if start == end:
        return
    if count(text[start:end]) <= context and level:
        yield span
    elif level < len(_BORDERS):
        for border in _BORDERS[level].finditer(text, start, end):
            yield from _pieces(text, (start, border.start()), level + 1, count, context)
            start = border.end()
        yield from _pieces(text, (start, end), level + 1, count, context)
    else:
        while start < end:
            cut = start + _fitting(text[start:end], count, context)
            yield start, cut
            start = cut


def _fitting(word: str, count: Count, context: int) -> int:
    """Characters at the beginning of a word that fit, at least one."""
    low, high = 1, len(word)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if count(word[:middle]) <= context else (low, middle - 1)
    while low > 1 and count(word[:low]) > context:  # a longer beginning can have fewer tokens, so the search may miss
        low -= 1
    return low
