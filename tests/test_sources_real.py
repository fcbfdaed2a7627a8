"""The real annotation files, where they are there: every question becomes a draft or is left out for a known reason."""

from collections import Counter

import pytest

from pipeline import sources
from pipeline.sources import Rejected
from pipeline.sources.files import read_content
from tests.real_data import real_folder

# file: (source, questions, {reason: number of rows left out}, {repair: number})
FILES = {
    "nextgqa/val.csv": ("nextgqa", 3358, {}, {}),
    "nextgqa/test.csv": ("nextgqa", 5553, {}, {"equal options joined": 1}),
    "nextqa/val.csv": ("nextqa", 4996, {}, {}),
    "nextqa/test.csv": ("nextqa", 8564, {}, {"equal options joined": 2}),
    "charades_sta/charades_sta_train.txt": ("charades-sta", 12408, {}, {"span ends swapped": 4}),
    "charades_sta/charades_sta_test.txt": ("charades-sta", 3720, {}, {}),
    "activitynet_captions/train.json": (
        *("activitynet", 37421, {"span without length": 2}),
        {"span ends swapped": 2},
    ),
    "activitynet_captions/val.json": ("activitynet", 17505, {}, {}),
    "activitynet_captions/test.json": ("activitynet", 17031, {}, {}),
    "time_r1/train_2k5.json": ("time-r1", 2500, {}, {}),
    "time_r1/tvgbench.json": ("tvgbench", 800, {"span without length": 11}, {}),
}


@pytest.mark.parametrize("name", FILES)
def test_a_real_file_is_recognised_and_counted(name: str) -> None:
    file = real_folder("annotations") / name
    source, rows = sources.read(file)
    outcomes = source.drafts(rows)
    reasons = Counter(outcome.reason for outcome in outcomes if isinstance(outcome, Rejected))
    repairs = Counter(kind for outcome in outcomes if not isinstance(outcome, Rejected) for kind in outcome.repairs)
    assert (source.name, len(outcomes), dict(reasons), dict(repairs)) == FILES[name]


@pytest.mark.parametrize("name", FILES)
def test_no_other_source_takes_a_real_file(name: str) -> None:
    content = read_content(real_folder("annotations") / name)
    fitting = [source.name for source in sources.SOURCES if source.fits(content, name.rsplit("/", 1)[-1])]
    assert [found for found in fitting if found != "generic"] == [FILES[name][0]]


def test_charades_takes_lengths_from_its_own_table() -> None:
    file = real_folder("annotations") / "charades_sta" / "charades_sta_test.txt"
    source, rows = sources.read(file)
    lengths = [draft.length_s for draft in source.drafts(rows) if not isinstance(draft, Rejected)]
    assert len(lengths) == 3720 and all(lengths)


def test_every_question_of_nextgqa_has_its_moments() -> None:
    source, rows = sources.read(real_folder("annotations") / "nextgqa" / "val.csv")
    drafts = [draft for draft in source.drafts(rows) if not isinstance(draft, Rejected)]
    assert len(drafts) == len({draft.row_id for draft in drafts}) == 3358
    several = sum(len(draft.spans) > 1 for draft in drafts)
    assert 0.05 < several / len(drafts) < 0.2 and all(draft.length_s for draft in drafts)
