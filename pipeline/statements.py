"""Where a response gives its answer: in a block, in a box, in a statement, or as all that it says."""

import json
import re
from collections.abc import Callable, Sequence

from pipeline.prompts import LETTERS
from pipeline.readers import NAMED_SPAN, NUMBER, NUMBER_WORDS, SPAN, normalise, read_letter, spans_in

_FIELDS = ("answer", "final_answer", "option", "choice", "letter")
_OBJECT = re.compile(r"\{[^{}]*\}")
_WRAPPING = re.compile(r"[*`$#]+(?:json)?|\\(?:text|textbf|mathrm|mathbf)(?=\{)|[{}]")
_NAMED_OPTION = re.compile(r"(?:option|choice|letter)(?:\s{0,4}:\s{0,4}|\s{1,4}|(?=[(\[]))|选项\s{0,4}", re.IGNORECASE)

_QUOTE = r"[\s*_\"'`]"
_STATEMENT = re.compile(
    r"(?:(?<![A-Za-z])(?:answer|(?:correct|right|best|final)\s(?:option|choice))(?![A-Za-z])|答案|正确选项)"
    rf"{_QUOTE}{{0,8}}(?:[:：=\n]|(?:is|was|(?:should|must|would|will)\sbe)(?![A-Za-z])|应该是|应?[为為]|[是选選])"
    rf"(?:{_QUOTE}|[:：]){{0,8}}",
    re.IGNORECASE,
)
_OPENS_A_SENTENCE = re.compile(
    r"(?:^|[.!?。，\n])[\s*_#\"{]{0,8}(?:(?:so|thus|hence|therefore),?\s)?(?:(?:the|my)\s)?(?:(?:final|correct|right|best)\s)?$",
    re.IGNORECASE,
)
_MARK = re.compile(r"[(\[]\s{0,4}[A-Za-z]\s{0,4}[)\]][.:,]?|[A-Za-z]\s{0,4}[.):,]|[A-Za-z](?:\s+|$)")
_OTHER_MARK = re.compile(r"(?<![A-Za-z])[A-Z][.):]")
# A stated letter may be followed by punctuation or by a reason, never by a second letter.
_STATED_LETTER = re.compile(
    r"[\s*_(\[\"'`]{0,6}([A-Za-z])(?![A-Za-z0-9])(?!\s{0,4}(?:,|/|&|or|and)\s{0,4}\(?[A-Z](?![A-Za-z]))"
    r"[\s*_)\]\"'`}]{0,6}(?:$|[-–—.,;:!?。，、；：()\]一-鿿]|(?<=\s)(?:because|since|as|due|based|given|which)(?![A-Za-z]))"
)
_WORDS = "|".join(NUMBER_WORDS)
_ABOUT = r"(?:about|approximately|around|roughly|nearly|exactly|a total of|there (?:is|are|was|were)|[~≈=$€£\s*]){0,6}"
_A_NUMBER = rf"{_ABOUT}((?>{NUMBER}|(?:{_WORDS})(?![A-Za-z])))"
_STATED_NUMBER = re.compile(
    rf"{_A_NUMBER}(?!\s{{0,4}}(?:-|–|to|or|and)\s{{0,4}}(?:[0-9]|(?:{_WORDS})\b))", re.IGNORECASE
)
# "3 cars", "12.5 square metres", "3 个": a number and at most two words, none of which is or joins another number.
_ONLY_NUMBER = re.compile(
    rf"{_A_NUMBER}\s{{0,4}}%?(?:\s{{0,4}}(?!(?:or|to|and|{_WORDS})\b)[^\W\d]+){{0,2}}[\s.!。*$]{{0,6}}", re.IGNORECASE
)
# A text of one span and of no other words than these is an answer: "The event happens from 3 to 5 seconds."
_AROUND_SPAN = frozenset(
    (
        *("the", "given", "query", "event", "moment", "action", "scene", "clip", "video", "it", "this", "that"),
        *("happens", "happen", "happened", "occurs", "occur", "occurred", "takes", "place", "is", "and", "answer"),
        *("in", "at", "from", "between", "during", "within", "of", "s", "sec", "second", "seconds", "time", "times"),
        *("interval", "span", "segment", "range", "timestamp", "timestamps", "json", "从", "在", "之间"),
    )
)
_LABEL = re.compile(r"(?:time|times|span|timestamps?|evidence|segment|interval|from|between|at|during|in|when)$", re.I)
_JOINTS = " \t\r\n,;:-–—@*"
_MOST_LINES = 200


def read_answer(text: str) -> str | None:
    """What stands in the last closed <answer> block, stripped; None without one."""
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, max(end, 0))
    return text[start + len("<answer>") : end].strip() if 0 <= start < end else None


def find_answer(text: str, task: str, options: Sequence[str]) -> str | None:
    """The piece of a response that answers; None when there is none, "" for an empty block. The first that there is of:

    1. the last closed <answer> block;
    2. an unclosed one, to the end (the response was cut, or its stop string ate the tag);
    3. of what follows the last </think>, or of everything without one: the last \\boxed{...}, the last statement
       ("the answer is B", "**Answer:** (B)", "答案：B") that can be read, then all of it, if all of it reads as an
       answer ("B", "3.2 - 4.5", {"start_time": 3.2, "end_time": 4.5}), or its first or last line, if no other does;
    4. of what was thought: the last box, then the last statement.

    Thoughts that were cut, without a box or a statement, hold no answer; nothing is picked out of prose.
    """
    block = read_answer(text)
    if block is not None:
        return block
    start = text.rfind("<answer>")
    if start >= 0:
        return _without_cut_tag(text[start + len("<answer>") :]).strip()
    thought, mark, final = text.rpartition("</think>")
    final = final.replace("</answer>", "").strip()
    answer = last_boxed(final) or stated(final, task, options)
    if answer is None and "<think>" not in final:
        answer = _whole(final, task, options)
    return answer or last_boxed(thought) or (stated(thought, task, options) if mark else None)


def _without_cut_tag(text: str) -> str:
    """Text without the beginning of an </answer> that was cut: "B</ans" is "B"."""
    start = text.rfind("<")
    return text[:start] if start >= 0 and "</answer>".startswith(text[start:]) else text


def last_boxed(text: str) -> str | None:
    """What stands in the last \\boxed{...}, by balanced braces; None without one, or when it is cut or empty."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    begin, depth = start + len("\\boxed{"), 1
    for place in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[begin:place].strip() or None
    return None


def core(text: str) -> str:
    """An answer without a box or JSON around it: of {"answer": "B"} it is B."""
    text = last_boxed(text) or text
    found = _OBJECT.findall(text)
    if not found:
        return text
    try:
        said = json.loads(found[-1])
    except (ValueError, RecursionError):  # text in braces that is not JSON
        return text
    for field in _FIELDS:
        if isinstance(said.get(field), str | int | float):
            return str(said[field]).strip()
    return text


def unwrapped(text: str) -> str:
    """An answer without box, JSON, code fence and Markdown, and without the word "option" before it."""
    text = _WRAPPING.sub("", core(text)).strip(" \t\r\n_\"'")
    named = _NAMED_OPTION.match(text)
    return text[named.end() :].strip() if named else text


def letter_and_span(text: str) -> tuple[str, re.Match[str] | None]:
    """An answer's two parts, what names the option and the span: "B 3 - 4", "B\\nTime: 3 - 4", "[3, 4] B".

    The last of several spans counts, if nothing follows it: an option's own text may hold one. Without a span the
    whole text names the option.
    """
    text = last_boxed(text) or text
    named, found = list(NAMED_SPAN.finditer(text)), list(SPAN.finditer(text))
    if len(named) == 1:
        span, head = named[0], text[: named[0].start()] + text[named[0].end() :]
    elif found and not text[found[-1].end() :].strip(" .)]}\"'*`\n"):
        span, head = found[-1], text[: found[-1].start()]
    elif len(found) == 1 and not text[: found[0].start()].strip(" ([*"):
        span, head = found[0], text[found[0].end() :]
    else:
        return text, None
    return _LABEL.sub("", head.strip(_JOINTS)).strip(_JOINTS), span


def stated(text: str, task: str, options: Sequence[str]) -> str | None:
    """What the last readable statement of a text ("the answer is ...") says, cut to the part that the task asks for."""
    found = list(_STATEMENT.finditer(text))
    end = len(text)
    for statement in reversed(found):
        line = text[statement.end() : end].partition("\n")[0].strip()
        said: str | None = None
        if task == "open":
            before = text[max(0, statement.start() - 64) : statement.start()]
            said = line.strip("\"'*`}") if _OPENS_A_SENTENCE.search(before) else None
        elif task == "choice":
            said = _stated_letter(line, options)
        elif task == "number":
            number = _STATED_NUMBER.match(line)
            said = number[1] if number else None
        elif task == "grounding":
            spans = spans_in(line)
            said = spans[0][0] if len(spans) == 1 else None
        elif task == "grounded_choice":
            said = _stated_letter_and_span(text[statement.end() : end].strip(), options)
        if said:
            return said
        end = statement.start()
    return None


def _stated_letter(line: str, options: Sequence[str]) -> str | None:
    whole = strict_letter(line, options)
    if whole:
        return whole
    named = _NAMED_OPTION.match(line)
    found = _STATED_LETTER.match(line, named.end() if named else 0)
    letter = found[1].upper() if found else ""
    return letter if letter and letter in (LETTERS[: len(options)] if options else LETTERS) else None


def _stated_letter_and_span(text: str, options: Sequence[str]) -> str | None:
    head, span = letter_and_span(text.partition("\n\n")[0])
    letter = _stated_letter(head.partition("\n")[0], options)
    return f"{letter} {span[0] if span else ''}".strip() if letter else None


def strict_letter(text: str, options: Sequence[str]) -> str | None:
    """The option that a text names and does nothing else: a letter, an option's text, or both.

    What follows a letter has to hold that option's text, or begin it; so "A) is wrong" names none.
    """
    text = unwrapped(text)
    letter = read_letter(text, options)
    if letter is None:
        return None
    own = normalise(options[LETTERS.index(letter)]) if options else ""
    mark = _MARK.match(text)
    rest = text[mark.end() :] if mark else ""
    said = normalise(rest)
    if not said or normalise(text) == own:
        return letter
    return letter if own and (own in said or said in own) and not _OTHER_MARK.search(rest) else None


def lone_letter(text: str, options: Sequence[str]) -> str | None:
    """The option that the first or the last line of a text names, when no other line names one."""
    line = _lone_line(text, lambda line: strict_letter(line, options) is not None)
    return strict_letter(line, options) if line else None


def _lone_line(text: str, reads: Callable[[str], bool]) -> str | None:
    """The first or last line of a text if it reads as an answer and no other does; of long texts none is looked for."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not 1 < len(lines) <= _MOST_LINES:
        return None
    found = [place for place, line in enumerate(lines) if reads(line)]
    return lines[found[0]] if found in ([0], [len(lines) - 1]) else None


def _whole(text: str, task: str, options: Sequence[str]) -> str | None:
    """A text, or its first or last line alone, if all of it reads as an answer of the task."""
    if task == "open":
        return text or None

    def reads(part: str) -> bool:
        if task == "choice":
            return strict_letter(part, options) is not None
        if task == "number":
            return _ONLY_NUMBER.fullmatch(part) is not None
        if task == "grounding":
            return _only_span(part)
        head, span = letter_and_span(part)
        return strict_letter(head, options) is not None or (span is not None and _only_span(part))

    return text if reads(text) else _lone_line(text, reads)


def _only_span(text: str) -> bool:
    """Whether a text is one span, with no other words than those around spans."""
    found = spans_in(text)
    if len(found) != 1:
        return False
    around = text[: found[0].start()] + " " + text[found[0].end() :]
    return all(word in _AROUND_SPAN for word in re.findall(r"[^\W_]+", around.casefold()))
