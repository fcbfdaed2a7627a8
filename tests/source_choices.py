"""Example files of formats that ask with options, one row a question, and of the generic one. All text is made up."""

from typing import Any

from tests.source_files import Example

RED_BLUE = ("red", "blue")


def problem(number: int, **changes: Any) -> dict[str, Any]:
    """A row of the Video-R1 layout."""
    return {
        "problem_id": number,
        "problem": "What is folded?",
        "data_type": "video",
        "problem_type": "multiple choice",
        "options": ["A. paper", "B. cloth "],
        "solution": "<answer>B</answer>",
        "path": "./a.mp4",
        "data_source": "made up",
        **changes,
    }


def next_row(**changes: Any) -> dict[str, Any]:
    """A row that NExT-QA and NExT-GQA share."""
    options = {"a0": "a kite", "a1": "a drum", "a2": "a rope", "a3": "a 2", "a4": "2"}
    return {"question": "what does he hold", "answer": 1, "qid": 3, "type": "CW", **options, **changes}


def ego(place: Any, **changes: Any) -> dict[str, Any]:
    options = ["A. C mends a net.", "B. C peels a root.", "C. C tunes a harp.", "D. C waters ivy.", "E. C rests."]
    return {
        "question_idx": "7",
        "question": "What is C about?",
        "video_idx": "aa-1",
        "option": options,
        "answer": place,
        **changes,
    }


def five(**changes: Any) -> dict[str, Any]:
    return {f"option {place}": f"C does {place}." for place in range(5)} | changes


CHOICES = [
    Example(
        "video-r1",
        "Video-R1-260k.json",
        [
            problem(1),
            problem(2, problem_type="numerical", options=None, solution="<answer> 4.50 </answer>"),
            problem(3, problem_type="free-form", options=[], solution="<answer>a heron</answer>"),
            problem(4, data_type="image"),
            problem(5, options=["A. paper"], solution="<answer>A</answer>"),
            problem(6, problem_type="regression", solution="<answer>none</answer>"),
            problem(7, problem_type="riddle"),
            problem(8, options=["A. paper", "", "C. cloth"], solution="<answer>C</answer>"),
            problem(9, options=["A. paper", "C. cloth", "D. wood"], solution="<answer>C</answer>"),
        ],
        [
            ("1", "./a.mp4", "choice", "What is folded?", ("paper", "cloth"), "B", ()),
            ("2", "./a.mp4", "number", "What is folded?", (), "4.5", ()),
            ("3", "./a.mp4", "open", "What is folded?", (), "a heron", ()),
            "not a video row",
            "fewer than two options",
            "answer is not a number",
            "unknown problem_type",
            ("8", "./a.mp4", "choice", "What is folded?", ("paper", "cloth"), "B", ()),
            "letters of the options have gaps",
        ],
    ),
    Example(
        "nextgqa",
        "val.csv",
        [
            {"video_id": "11", **next_row(answer="2")},
            {"video_id": "11", **next_row(answer="a rope", qid=4)},
            {"video_id": "12", **next_row(answer="a rope")},
            {"video_id": "11", **next_row(answer="A", qid=3)},
            {"video_id": "11", **next_row(answer="a drum", a0="A drum", qid=4)},
        ],
        [
            (
                "11/3",
                "11",
                "grounded_choice",
                "what does he hold",
                ("a kite", "a drum", "a rope", "a 2", "2"),
                "E",
                ((1.0, 2.0),),
            ),
            (
                *(
                    "11/4",
                    "11",
                    "grounded_choice",
                    "what does he hold",
                    ("a kite", "a drum", "a rope", "a 2", "2"),
                    "C",
                ),
                ((0.5, 1.0), (3.0, 4.5)),
            ),
            "no span",
            "answer is none of the options",
            (
                *("11/4", "11", "grounded_choice", "what does he hold", ("A drum", "a rope", "a 2", "2"), "A"),
                ((0.5, 1.0), (3.0, 4.5)),
            ),
        ],
        {"gsub_val.json": {"11": {"duration": 30, "fps": 25, "location": {"3": [[1, 2]], "4": [[3, 4.5], [0.5, 1]]}}}},
    ),
    Example(
        "nextqa",
        "test.csv",
        [
            {"video": "11", **next_row()},
            {"video": "11", **next_row(answer="5")},
            {"video": "11", **next_row(answer="")},
            {"video": "11", **next_row(answer="a drum")},
            {"video": "11", **next_row(answer=3, a1="", qid=8)},
        ],
        [
            ("11/3", "11", "choice", "what does he hold", ("a kite", "a drum", "a rope", "a 2", "2"), "B", ()),
            "answer is none of the options",
            "no answer",
            "answer is none of the options",
            ("11/8", "11", "choice", "what does he hold", ("a kite", "a rope", "a 2", "2"), "C", ()),
        ],
    ),
    Example(
        "mvbench",
        "object_shuffle.json",
        [
            {"video": "a.webm", "question": "Where is it?", "candidates": ["B", "A", "left"], "answer": "A"},
            {
                "video": "a.mp4",
                "question": "Where is it?",
                "candidates": ["up", "left"],
                "answer": "up.",
                "start": 5.5,
                "end": 9,
            },
            {"video": "a.mp4", "question": "Where is it?", "candidates": ["up", "left"], "answer": "B"},
            {
                "video": "a.mp4",
                "question": "Where is it?",
                "candidates": ["up", "left"],
                "answer": "up",
                "start": 9,
                "end": 9,
            },
        ],
        [
            ("0", "a.webm", "choice", "Where is it?", ("B", "A", "left"), "B", ()),
            ("1", "a.mp4", "choice", "Where is it?", ("up", "left"), "A", ()),
            "answer is none of the options",
            "unreadable cut",
        ],
    ),
    Example(
        "egoschema",
        "egoschema.parquet",
        [ego("2"), ego("5"), ego(None)],
        [
            (
                *("7", "aa-1", "choice", "What is C about?"),
                ("C mends a net.", "C peels a root.", "C tunes a harp.", "C waters ivy.", "C rests."),
                *("C", ()),
            ),
            "answer is none of the options",
            "no answer",
        ],
    ),
    Example(
        "egoschema",
        "questions.json",
        [
            {"q_uid": "bb", "google_drive_id": "x", "question": "What?", **five()},
            {"q_uid": "cc", "google_drive_id": "x", "question": "What?", **five()},
        ],
        [
            (
                *("bb", "bb", "choice", "What?"),
                ("C does 0.", "C does 1.", "C does 2.", "C does 3.", "C does 4."),
                *("E", ()),
            ),
            "no answer",
        ],
        {"subset_answers.json": {"bb": 4, "dd": 0}},
    ),
    Example(
        "egoschema",
        "fullset_anno.json",
        {"bb": {"question": "What?", **five(), "truth": 0}, "cc": {"question": "What?", **five(), "truth": -1}},
        [
            (
                *("bb", "bb", "choice", "What?"),
                ("C does 0.", "C does 1.", "C does 2.", "C does 3.", "C does 4."),
                *("A", ()),
            ),
            "answer is none of the options",
        ],
    ),
    Example(
        "generic",
        "mine.csv",
        [
            {"video": "a.mp4", "question": "Which?", "options": "red|blue", "answer": "blue", "spans": "", "id": "k"},
            {
                "video": "a.mp4",
                "question": "Which?",
                "options": "red|blue",
                "answer": "A",
                "spans": "[[1, 2]]",
                "id": "",
            },
            {"video": "a.mp4", "question": "Where?", "options": "", "answer": "", "spans": "3-4.5", "id": ""},
            {"video": "a.mp4", "question": "How many?", "options": "", "answer": "3", "spans": "", "id": ""},
            {"video": "a.mp4", "question": "Who?", "options": "", "answer": "a cook", "spans": "", "id": ""},
            {"video": "", "question": "Who?", "options": "", "answer": "a cook", "spans": "", "id": ""},
        ],
        [
            ("k", "a.mp4", "choice", "Which?", RED_BLUE, "B", ()),
            ("1", "a.mp4", "grounded_choice", "Which?", RED_BLUE, "A", ((1.0, 2.0),)),
            ("2", "a.mp4", "grounding", "Where?", (), "", ((3.0, 4.5),)),
            ("3", "a.mp4", "number", "How many?", (), "3", ()),
            ("4", "a.mp4", "open", "Who?", (), "a cook", ()),
            "no video named",
        ],
    ),
]
