"""The words that a policy is asked with: one system text for all tasks, and the question with its options."""

from collections.abc import Sequence

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

SYSTEM = (
    "Think inside <think> </think>, then answer inside <answer> </answer>: "
    "a letter, a number, start - end in seconds, or a letter and start - end."
)


def question_text(question: str, options: Sequence[str]) -> str:
    """The user's text: the question, then one line an option ("A. red").

    Args:
        question: without options and instructions.
        options: texts without letters, at most 26; empty for questions without options.
    """
    return "\n".join([question, *(f"{LETTERS[i]}. {text}" for i, text in enumerate(options))])
