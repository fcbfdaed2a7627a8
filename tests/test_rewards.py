"""The reward parts of a response, the rule that joins them, and the same rule over whole tables."""

from fractions import Fraction
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.measures import rouge_l, words
from pipeline.rewards import DEFAULT_RULE, Reward, RewardRule, duration_of, is_binary, reward_expr, score
from pipeline.schemas import TASKS

rouge_l("a", "a")  # imports the library here, not in the time of an example

OPTIONS = ["red", "blue", "dark green", "a dog"]
Sample = tuple[str, list[str], str, list[list[float]]]
SAMPLES: dict[str, Sample] = {
    "choice": ("choice", OPTIONS, "B", []),
    "number": ("number", [], "3", []),
    "open": ("open", [], "a blue ball", []),
    "grounding": ("grounding", [], "", [[1.0, 2.0]]),
    "grounded_choice": ("grounded_choice", OPTIONS, "B", [[1.0, 2.0]]),
}
DURATION = 12.5

weights = st.one_of(st.sampled_from([0.0, 1.0, 0.5, 0.1, 3.0]), st.floats(0, 1e6))
rules = st.builds(
    lambda pair, **rest: RewardRule(accuracy=pair[0], iou=pair[1], **rest),
    st.tuples(weights, weights).filter(any),
    format=weights,
    number=st.sampled_from(["exact", "mra"]),
    text=st.sampled_from(["exact", "rouge"]),
    span=st.sampled_from(["iou", "boundary"]),
)


@st.composite
def scored(draw: st.DrawFn) -> tuple[Sample, str]:
    """A sample, and a response that is often right, nearly right, or half right."""
    task = draw(st.sampled_from(TASKS))
    letter = draw(st.sampled_from(["A", "B", "B", "E", ""]))
    span = "{:.2f} - {:.2f}".format(*draw(st.tuples(st.floats(0, 3), st.floats(0, 3))))
    answer = {
        "choice": letter,
        "number": draw(st.one_of(st.integers(1, 6).map(str), st.floats(1, 6).map(str), st.just("many"))),
        "open": " ".join(draw(st.lists(st.sampled_from(["a", "red", "blue", "ball", "."]), max_size=5))),
        "grounding": draw(st.sampled_from([span, span, "1 - 2", "soon"])),
        "grounded_choice": f"{letter} {draw(st.sampled_from([span, span, '1 - 2', '']))}",
    }[task]
    frame = draw(st.sampled_from(["<think>x</think><answer>{}</answer>", "<answer>{}</answer>", "{}"]))
    return SAMPLES[task], frame.replace("{}", answer)


def respond(answer: str) -> str:
    return f"<think> because </think> <answer> {answer} </answer>"


def joined(reward: Reward, task: str, rule: RewardRule) -> Fraction:
    """The weighted mean of a task's parts in exact arithmetic."""
    number, text = rule.number == "mra", rule.text == "rouge"
    right = reward.credit if (task == "number" and number) or (task == "open" and text) else reward.accuracy
    span = reward.boundary_iou if rule.span == "boundary" else reward.iou
    parts = [(w, part) for w, part in ((rule.accuracy, right), (rule.iou, span)) if part is not None and w]
    whole = sum((Fraction(w) for w, _ in parts), Fraction())
    return sum((Fraction(w) * Fraction(part) for w, part in parts), Fraction()) / whole if parts else Fraction()


@given(scored(), rules)
def test_the_reward_is_the_weighted_mean_of_the_parts_and_the_total_has_format_too(
    case: tuple[Sample, str], rule: RewardRule
) -> None:
    (task, *truth), text = case
    reward = score(text, task, *truth, duration_s=DURATION, rule=rule)
    for part in (reward.accuracy, reward.credit, reward.iou, reward.boundary_iou, reward.format, reward.total):
        assert part is None or 0.0 <= part <= 1.0
    assert 0.0 <= reward.reward <= 1.0
    assert reward.reward == pytest.approx(float(joined(reward, task, rule)), abs=1e-12)
    weight = (rule.accuracy if task != "grounding" else 0.0) + (rule.iou if task.startswith("grounde") else 0.0)
    weight += rule.iou if task == "grounding" else 0.0
    if weight + rule.format > 0:
        mean = (Fraction(weight) * Fraction(reward.reward) + Fraction(rule.format) * Fraction(reward.format)) / (
            Fraction(weight) + Fraction(rule.format)
        )
        assert reward.total == pytest.approx(float(mean), abs=1e-12)
    if not rule.format:
        assert reward.total == reward.reward


@settings(max_examples=60, deadline=None)
@given(st.lists(scored(), min_size=1, max_size=12), rules, st.booleans())
def test_the_expression_equals_the_reward_to_the_last_bit(
    cases: list[tuple[Sample, str]], rule: RewardRule, at_once: bool
) -> None:
    found = [(task, score(text, task, *truth, duration_s=DURATION, rule=rule)) for (task, *truth), text in cases]
    columns = {name: [getattr(r, name) for _, r in found] for name in ("accuracy", "credit", "iou", "boundary_iou")}
    types = dict.fromkeys(columns, pl.Float64)
    table = pl.DataFrame({"task": [task for task, _ in found], **columns}, schema={"task": pl.String, **types})
    out = table.lazy().select(reward_expr(rule)).collect() if at_once else table.select(reward_expr(rule))
    assert out["reward"].to_list() == [r.reward for _, r in found]


def test_the_expression_is_null_where_a_part_is_missing() -> None:
    row: dict[str, list[Any]] = {"task": ["grounding", "grounded_choice", "essay"], "accuracy": [None, 1.0, 1.0]}
    row |= {"credit": [None] * 3, "iou": [0.5, 0.5, 0.5], "boundary_iou": [None] * 3}
    assert pl.DataFrame(row).select(reward_expr(RewardRule(span="boundary")))["reward"].to_list() == [None] * 3
    assert pl.DataFrame(row).select(reward_expr())["reward"].to_list() == [0.5, 0.75, None]


@given(scored())
def test_the_parts_do_not_depend_on_the_rule(case: tuple[Sample, str]) -> None:
    (task, *truth), text = case
    strict = RewardRule(accuracy=0.2, iou=3.0, format=1.0, number="mra", text="exact", span="boundary")
    one, other = (score(text, task, *truth, duration_s=DURATION, rule=rule) for rule in (DEFAULT_RULE, strict))
    for name in ("accuracy", "credit", "iou", "boundary_iou", "format", "parse_error"):
        assert getattr(one, name) == getattr(other, name)
    assert (one.accuracy is None) == (task == "grounding")
    assert (one.credit is None) == (task not in ("number", "open"))
    assert (one.iou is None) == (task not in ("grounding", "grounded_choice")) == (one.boundary_iou is None)
    assert one.credit is None or one.accuracy is None or one.credit >= one.accuracy


@given(scored(), rules)
def test_binary_is_what_is_0_or_1(case: tuple[Sample, str], rule: RewardRule) -> None:
    (task, *truth), text = case
    if is_binary(task, rule):
        assert score(text, task, *truth, duration_s=DURATION, rule=rule).reward in (0.0, 1.0)


def test_which_rewards_are_binary() -> None:
    assert [is_binary(task) for task in TASKS] == [True, False, False, True, False]
    exact = RewardRule(number="mra", text="exact")
    assert [is_binary(task, exact) for task in ("choice", "number", "open")] == [True, False, True]


@given(rules)
def test_a_rule_reads_back_from_its_line(rule: RewardRule) -> None:
    assert RewardRule.parse(rule.line()) == rule


def test_a_rule_may_be_given_in_part() -> None:
    assert RewardRule.parse("") == RewardRule.parse("  ") == DEFAULT_RULE
    assert RewardRule.parse(" number = mra , format=0.1") == RewardRule(number="mra", format=0.1)
    assert DEFAULT_RULE.line() == "accuracy=1,iou=1,format=0,number=exact,text=rouge,span=iou"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("accuracy=-1", "not negative"),
        ("format=nan", "finite"),
        ("iou=inf", "finite"),
        ("accuracy=1e308,iou=1e308", "finite"),
        ("accuracy=0,iou=0,format=1", "above 0 for accuracy or iou"),
        ("number=near", "number=near: expected exact or mra"),
        ("text=bleu", "expected exact or rouge"),
        ("span=giou", "expected iou or boundary"),
        ("format", "--reward format: expected a number"),
        ("iou=much", "iou=much: expected a number"),
        ("length=1", "length=1: expected each of accuracy, iou, format, number, text, span once"),
        ("iou=1,iou=2", "iou=2: expected each of"),
        ("iou=1,", "once"),
        ("mra", "mra: expected each of"),
    ],
)
def test_what_is_no_rule(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        RewardRule.parse(text)
    assert str(caught.value).startswith("--reward ")


def test_scripts_without_spaces_have_words() -> None:
    assert words("Ein Ärmel, 红色的球!") == ["ein", "ärmel", "红", "色", "的", "球"]
    assert score(respond("红色的球"), "open", [], "红色的车", []).credit == 0.75
    assert score(respond("♥"), "open", [], "♥", []).credit == 1.0


def test_the_boundary_weighted_form_needs_a_duration() -> None:
    sample = SAMPLES["grounding"]
    assert score(respond("1 - 2"), *sample).boundary_iou is None
    with pytest.raises(ValueError, match="span=boundary needs the duration"):
        score(respond("1 - 2"), *sample, rule=RewardRule(span="boundary"))
    assert score(respond("soon"), *sample, duration_s=4.0, rule=RewardRule(span="boundary")).reward == 0.0
    assert score(respond("B"), *SAMPLES["choice"], rule=RewardRule(span="boundary")).reward == 1.0


def test_spans_lie_in_the_clip_or_else_in_the_video() -> None:
    assert duration_of({"clip": [2.0, 5.5], "video_id": "a"}, {"a": 60.0}) == 3.5
    assert duration_of({"clip": [], "video_id": "a"}, {"a": 60.0}) == 60.0
    assert duration_of({"clip": None, "video_id": "b"}, {"a": 60.0}) is None


def test_the_best_of_several_true_spans_counts() -> None:
    found = score(respond("3 - 4"), "grounding", [], "", [[9.0, 10.0], [3.0, 4.0]], duration_s=10.0)
    assert (found.iou, found.boundary_iou) == (1.0, 1.0)


def test_half_of_a_grounded_answer_keeps_its_half() -> None:
    only_letter = score(respond("B"), "grounded_choice", OPTIONS, "B", [[3.0, 4.0]])
    only_span = score(respond("3 - 4"), "grounded_choice", OPTIONS, "B", [[3.0, 4.0]])
    assert (only_letter.reward, only_letter.parse_error) == (0.5, "no span")
    assert (only_span.reward, only_span.parse_error) == (0.5, "no option")


def test_a_part_without_weight_does_not_count() -> None:
    spans_only = RewardRule(accuracy=0.0)
    assert score(respond("B 5 - 6"), *SAMPLES["grounded_choice"], rule=spans_only).reward == 0.0
    assert score(respond("B"), *SAMPLES["choice"], rule=spans_only).reward == 0.0
    assert score(respond("1 - 2"), *SAMPLES["grounding"], rule=spans_only).reward == 1.0


def test_format_enters_the_total_and_never_the_reward() -> None:
    rule = RewardRule(format=0.25)
    bare, unreadable = (
        score("<answer>B</answer>", *SAMPLES["choice"], rule=rule),
        score(respond("perhaps"), *SAMPLES["choice"], rule=rule),
    )
    assert (bare.reward, bare.format, bare.total) == (1.0, 0.0, 0.8)
    assert (unreadable.reward, unreadable.format) == (0.0, 1.0)
    assert unreadable.total == pytest.approx(0.2)


@pytest.mark.parametrize(("text", "right"), [("3", 1), ("3.0", 1), ("three", 1), ("4", 0), ("none", 0)])
def test_numbers(text: str, right: float) -> None:
    assert score(respond(text), "number", [], "3", []).reward == right


def test_numbers_with_thousands_and_signs() -> None:
    assert score(respond("1,234.5"), "number", [], "1234.5", []).reward == 1.0
    near = score(respond("-2"), "number", [], "2", [], rule=RewardRule(number="mra"))
    assert (near.accuracy, near.credit, near.reward) == (0.0, 0.0, 0.0)
    near = score(respond("9.5"), "number", [], "10", [], rule=RewardRule(number="mra"))
    assert (near.accuracy, near.credit, near.reward) == (0.0, 1.0, 1.0)


def test_options_with_the_same_text_are_the_same_option() -> None:
    assert score(respond("yes"), "choice", ["yes", "no", "yes"], "C", []).reward == 1.0


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
