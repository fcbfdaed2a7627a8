"""Sources: every format's rows become exactly these drafts, or are left out for exactly these reasons."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline import sources
from pipeline.errors import UserError
from pipeline.schemas import TASKS
from pipeline.sources import SOURCES, Draft, is_evaluation
from pipeline.sources.source import split_in_name
from pipeline.sources.temporal_r1 import sample
from tests.source_benchmarks import BENCHMARKS
from tests.source_choices import CHOICES, ego, problem
from tests.source_files import Example, brief, read, rows_of, write
from tests.source_grounding import GROUNDING

TEMPORAL_ROWS = next(example.content for example in GROUNDING if example.file == "charades_tvg.json")
EXAMPLES = [*CHOICES, *GROUNDING, *BENCHMARKS]
IDS = [f"{example.source}-{example.file}" for example in EXAMPLES]


def drafts_of(name: str, folder: Path) -> list[Draft]:
    """The drafts of an example, by the name of its file."""
    outcomes = read(next(example for example in EXAMPLES if example.file == name), folder)[1]
    return [outcome for outcome in outcomes if isinstance(outcome, Draft)]


def test_every_source_has_an_example_and_a_name_of_its_own() -> None:
    names = [source.name for source in SOURCES]
    assert len(names) == len(set(names)) and set(names) == {example.source for example in EXAMPLES}
    assert all(set(source.tasks) <= set(TASKS) and source.title for source in SOURCES)
    assert names[-1] == "generic"


@pytest.mark.parametrize("example", EXAMPLES, ids=IDS)
def test_an_example_becomes_exactly_these_drafts(example: Example, tmp_path: Path) -> None:
    source, outcomes = read(example, tmp_path)
    assert source.name == example.source
    assert [brief(outcome) for outcome in outcomes] == example.briefs
    assert {outcome.task for outcome in outcomes if isinstance(outcome, Draft)} <= set(source.tasks)


@pytest.mark.parametrize("example", EXAMPLES, ids=IDS)
def test_an_example_is_recognised_by_its_own_source_alone(example: Example) -> None:
    """Order in the registry does not decide between two formats; only generic, the last, takes any list."""
    fitting = [source.name for source in SOURCES if source.fits(example.content, example.file.lower())]
    assert [name for name in fitting if name != "generic"] == ([example.source] if example.source != "generic" else [])


@pytest.mark.parametrize("example", EXAMPLES, ids=IDS)
def test_the_format_may_also_be_named(example: Example, tmp_path: Path) -> None:
    _, outcomes = read(example, tmp_path)
    source, rows = sources.read(tmp_path / example.file, example.source)
    assert [brief(outcome) for outcome in source.drafts(rows)] == [brief(outcome) for outcome in outcomes]


@pytest.mark.parametrize("example", EXAMPLES, ids=IDS)
def test_no_other_source_breaks_on_the_example(example: Example) -> None:
    for source in SOURCES:
        rows = rows_of(source, example.content, {})
        assert rows == "unexpected layout" or len(source.drafts(rows)) == len(rows)


def test_the_origin_is_the_row_as_it_was(tmp_path: Path) -> None:
    row = json.loads(drafts_of("test.jsonl", tmp_path)[0].origin)
    assert row["question_type"] == "object_abs_distance" and row["ground_truth"] == "2.5" and row["options"] is None


def test_an_image_is_kept_out_of_the_origin(tmp_path: Path) -> None:
    origins = [json.loads(draft.origin) for draft in drafts_of("Adaptation.parquet", tmp_path)]
    assert [origin["image"]["bytes"] for origin in origins] == [None, "4 bytes", None]


def test_temporal_r1_gives_shares_the_folder_and_the_split_of_each_file(tmp_path: Path) -> None:
    one, two = drafts_of("tvg_train.yaml", tmp_path)
    assert one.shares and (one.length_s, one.split, one.repairs) == (12.0, "train", ("span ends swapped",))
    assert two.shares and (two.length_s, two.split, two.repairs) == (None, "test", ())
    assert json.loads(one.origin)["video"] == "b.mp4"


def test_temporal_r1_takes_absolute_paths(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    file = write(elsewhere / "rows.json", TEMPORAL_ROWS)
    listed = {"datasets": [{"json_path": str(file)}]}
    _, rows = sources.read(write(tmp_path / "list.yaml", listed))
    assert rows == TEMPORAL_ROWS


@pytest.mark.parametrize(
    ("strategy", "places"),
    [
        ("all", range(10)),
        ("first:3", range(3)),
        ("first:30%", range(3)),
        ("first:25%", range(3)),
        ("25%", range(3)),
        ("0%", range(0)),
        ("end:2", range(8, 10)),
        ("end:0", range(0)),
        ("end:99", range(10)),
        ("random:99", range(10)),
        ("random:100%", range(10)),
    ],
)
def test_sampling_strategies(strategy: str, places: range) -> None:
    assert sample(list(range(10)), strategy) == list(places)


def test_random_sampling_repeats_keeps_the_order_and_repeats_no_row() -> None:
    chosen = sample(list(range(100)), "random:20%")
    assert chosen == sample(list(range(100)), "random:20") == sorted(set(chosen)) and len(chosen) == 20
    assert chosen != list(range(20))


@pytest.mark.parametrize(
    "strategy", ["some", "first", "first:", "first:x", "last:3", "first:101%", "-3", "first:-1", 3]
)
def test_a_bad_sampling_strategy_is_named(strategy: Any, tmp_path: Path) -> None:
    write(tmp_path / "rows.json", TEMPORAL_ROWS)
    listed = {"datasets": [{"json_path": "rows.json", "data_folder": "", "sampling_strategy": strategy}]}
    with pytest.raises(UserError, match="sampling_strategy is"):
        sources.read(write(tmp_path / "list.yaml", listed))


def test_a_listed_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.json"):
        sources.read(write(tmp_path / "list.yaml", {"datasets": [{"json_path": "gone.json"}]}))


def test_cuts_and_lengths(tmp_path: Path) -> None:
    assert [draft.cut for draft in drafts_of("train_2k5.json", tmp_path)] == [None, (30.0, 50.0)]
    assert [draft.cut for draft in drafts_of("object_shuffle.json", tmp_path)] == [None, (5.5, 9.0)]
    assert [draft.length_s for draft in drafts_of("charades_sta_test.txt", tmp_path)] == [30.5, 30.5]
    assert [draft.length_s for draft in drafts_of("train.json", tmp_path)] == [20.0, 20.0]
    assert [draft.length_s for draft in drafts_of("val.csv", tmp_path)] == [30.0, 30.0, 30.0]
    (row,) = drafts_of("all_train.json", tmp_path)
    assert (row.length_s, row.split) == (10.0, "train")


def test_repairs_are_counted(tmp_path: Path) -> None:
    assert [draft.repairs for draft in drafts_of("val_2.json", tmp_path)] == [(), ("span ends swapped",)]
    assert [draft.repairs for draft in drafts_of("highlight_val_release.jsonl", tmp_path)] == [("spans put in order",)]
    assert [draft.repairs for draft in drafts_of("Video-MME.json", tmp_path)] == [("options put in order",)]
    assert [draft.repairs for draft in drafts_of("val.csv", tmp_path)][2] == (
        "equal options joined",
        "spans put in order",
    )
    assert [draft.repairs for draft in drafts_of("validation.json", tmp_path)] == [("empty options dropped",), ()]


def test_egoschema_never_joins_answers_of_another_release(tmp_path: Path) -> None:
    """The parquet file puts options in another order than the questions that the answers beside it belong to."""
    write(tmp_path / "subset_answers.json", {"aa-1": 0})
    source, rows = sources.read(write(tmp_path / "egoschema.parquet", [ego(None)]))
    assert [brief(outcome) for outcome in source.drafts(rows)] == ["no answer"]


def test_the_file_of_moments_is_asked_for(tmp_path: Path) -> None:
    example = next(example for example in EXAMPLES if example.source == "nextgqa")
    with pytest.raises(UserError, match=r"gsub_val\.json"):
        sources.read(write(tmp_path / "val.csv", example.content))


def test_another_layout_under_a_named_format_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.json", [problem(1)])
    with pytest.raises(UserError, match="not a file of tacos"):
        sources.read(file, "tacos")
    with pytest.raises(UserError, match="one of auto"):
        sources.read(file, "unheard-of")
    with pytest.raises(UserError, match="its layout is that of no known source"):
        sources.read(write(tmp_path / "odd.json", {"a": 1}))


@pytest.mark.parametrize(
    ("stem", "split"),
    [
        ("charades_sta_train", "train"),
        ("eval_mvbench", "test"),
        ("highlight_val_release", "val"),
        ("mc_question_valid", "val"),
        ("validation-00000-of-00001", "val"),
        ("test-00000-of-00001", "test"),
        ("TRAIN", "train"),
        ("train_minival", "val"),
        ("my_dev_set", "val"),
        ("contest", None),
        ("strain", None),
        ("Video-R1-260k", None),
    ],
)
def test_split_in_name(stem: str, split: str | None) -> None:
    assert split_in_name(stem) == split


def test_activitynet_takes_its_second_annotator_for_test() -> None:
    activitynet = sources.find("activitynet")
    assert [activitynet.split(stem) for stem in ("train", "val_1", "val_2", "val", "test")] == [
        *("train", "val", "test", "val", "test")
    ]


@pytest.mark.parametrize(
    ("split", "evaluates"),
    [
        *((split, True) for split in ("val", "VAL_1", "test-mini", " dev ", "eval", "benchmark")),
        *((split, False) for split in ("train", "", "trainval", "contest")),
    ],
)
def test_is_evaluation(split: str, evaluates: bool) -> None:
    assert is_evaluation(split) == evaluates


def test_benchmarks_are_for_evaluation_by_default() -> None:
    evaluating = {source.name for source in SOURCES if is_evaluation(source.default_split)}
    assert evaluating >= {"egoschema", "video-mme", "tempcompass", "video-mmmu", "vsi-bench", "mvbench", "mmvu"}
    assert evaluating >= {"perception-test", "tvgbench", "nextgqa"}
    assert not evaluating & {"video-r1", "temporal-r1", "time-r1", "generic"}
