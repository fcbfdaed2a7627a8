"""Example files of benchmarks that come in several layouts. All text is made up."""

from tests.source_files import Example

RED_BLUE = ("red", "blue")


BENCHMARKS = [
    Example(
        "video-mme",
        "test-00000-of-00001.parquet",
        [
            {
                "video_id": "001",
                "duration": "short",
                "domain": "Craft",
                "url": "https://example.org/watch?v=-abcdefghij",
                "videoID": "-abcdefghij",
                "question_id": f"001-{answer}",
                "question": "Which colour is the kite?",
                "options": ["A. red", "B. blue", "C. 3.", "D. None."],
                "answer": answer,
            }
            for answer in ("D", "E")
        ],
        [
            (
                *("001-D", "-abcdefghij", "choice", "Which colour is the kite?", ("red", "blue", "3.", "None."), "D"),
                (),
            ),
            "answer is none of the options",
        ],
    ),
    Example(
        "video-mme",
        "Video-MME.json",
        [
            {
                "video_id": "001",
                "duration": "long",
                "url": "https://example.org/watch?app=x&v=-abcdefghij&t=3",
                "questions": [
                    {
                        "question_id": "001-1",
                        "question": "Which?",
                        "choices": ["B. blue", "A. red"],
                        "answer": "B. blue",
                    },
                    {"question_id": "001-2", "question": "Which?", "choices": None, "answer": "B"},
                    "lost",
                ],
            },
            {"video_id": "002", "duration": "long", "questions": []},
            {"video_id": "003", "duration": "long", "questions": None},
        ],
        [
            ("001-1", "-abcdefghij", "choice", "Which?", RED_BLUE, "B", ()),
            "fewer than two options",
            "no question",
            "no question",
        ],
    ),
    Example(
        "tempcompass",
        "multi-choice.json",
        {
            "12": {
                "action": [
                    {"question": "What is done?\nA. a kite flies\nB. a kite falls", "answer": "B. a kite falls"},
                    {"question": "What is done?\nA. a kite flies\n B.a kite falls", "answer": "a kite flies"},
                ],
                "order": [
                    {"question": "What comes first?A. the kite\nA. the drum\nB. the rope", "answer": "A. the drum"},
                    {"question": "What comes first?\nA. the kite\nB. the rope", "answer": "C. the drum"},
                ],
            },
            "12_reverse": {"action": "lost", "speed": []},
        },
        [
            ("12/action/0", "12", "choice", "What is done?", ("a kite flies", "a kite falls"), "B", ()),
            ("12/action/1", "12", "choice", "What is done?", ("a kite flies", "a kite falls"), "A", ()),
            "option inside the question",
            "answer is none of the options",
            "no question",
        ],
    ),
    Example(
        "tempcompass",
        "yes_no.json",
        {
            "12": {
                "speed": [
                    {"question": "Is it slow?\nPlease answer yes or no:", "answer": "yes"},
                    {"question": "Is it slow?", "answer": "No."},
                    {"question": "Is it slow?", "answer": "perhaps"},
                ]
            }
        },
        [
            ("12/speed/0", "12", "choice", "Is it slow?", ("Yes", "No"), "A", ()),
            ("12/speed/1", "12", "choice", "Is it slow?", ("Yes", "No"), "B", ()),
            "no choices",
        ],
    ),
    Example(
        "tempcompass",
        "caption_matching.json",
        {
            "12": {
                "direction": [
                    {
                        "question": f"Which one fits?\n{first}: A kite rises.\n{second}: A kite sinks.",
                        "answer": f"{second}: A kite sinks.",
                    }
                    for first, second in (
                        ("Caption A", "Caption B"),
                        ("Option 1", "Option 2"),
                        ("Sentence A", "Sentence B"),
                    )
                ]
            }
        },
        [
            (f"12/direction/{n}", "12", "choice", "Which one fits?", ("A kite rises.", "A kite sinks."), "B", ())
            for n in range(3)
        ],
    ),
    Example(
        "tempcompass",
        "captioning.parquet",
        [
            {
                "video_id": "12",
                "dim": "speed",
                "question": "Write a caption.\nInformation A: {'speed': 'slow'}\nGenerated Caption:",
                "answer": "A. slow",
                "mc_question": asked,
                "mc_answer": "A. slow",
            }
            for asked in ("How fast is it?\nA. slow\nB. fast", None)
        ],
        [
            ("12/speed/0", "12", "choice", "How fast is it?", ("slow", "fast"), "A", ()),
            ("12/speed/1", "12", "open", "Write a caption.\nInformation A: {'speed': 'slow'}", (), "slow", ()),
        ],
    ),
    Example(
        "mmvu",
        "validation.json",
        [
            {
                "id": "validation_0",
                "video": "https://example.org/data/resolve/main/videos/Fine%20Art/0.mp4",
                "question_type": "multiple-choice",
                "question": "Which glaze?",
                "choices": {"A": "ash", "B": "", "C": "salt", "D": "lead", "E": "tin"},
                "answer": "C",
                "metadata": {"subject": "Fine Art"},
            },
            {
                "id": "validation_1",
                "video": "https://example.org/videos/Art/1.mp4?download=true",
                "question_type": "open-ended",
                "question": "Which glaze?",
                "choices": dict.fromkeys("ABCDE", ""),
                "answer": "ash glaze",
            },
            {
                "id": "test_1",
                "video": "Art/1.mp4",
                "question_type": "multiple-choice",
                "question": "Which glaze?",
                "choices": {"A": "ash", "B": "salt"},
            },
        ],
        [
            ("validation_0", "Fine Art/0.mp4", "choice", "Which glaze?", ("ash", "salt", "lead", "tin"), "B", ()),
            ("validation_1", "Art/1.mp4", "open", "Which glaze?", (), "ash glaze", ()),
            "no answer",
        ],
    ),
    Example(
        "video-mmmu",
        "Adaptation.parquet",
        [
            {
                "id": f"test_Fine_Art_{n}",
                "question": asked,
                "options": options,
                "answer": answer,
                "question_type": kind,
                "image": {"bytes": image, "path": None},
            }
            for n, (asked, options, answer, kind, image) in enumerate(
                [
                    ("What is shown in <image 1>?", list("pqrstuvwxyzabc"), "N", "multiple-choice", None),
                    ("What is shown in <image 1>?", ["A. oak", "B. elm"], "A", "multiple-choice", b"\x89PNG"),
                    ("Which wood is it?", ["A. oak", "B. elm"], "B", "perception", b"\x89PNG"),
                    ("How heavy is it? Please give it in grams.", [], "5.5", "open", None),
                ]
            )
        ],
        [
            (
                *("test_Fine_Art_0", "test_Fine_Art_0", "choice", "What is shown in <image 1>?"),
                *(tuple("pqrstuvwxyzabc"), "N", ()),
            ),
            "needs an image",
            ("test_Fine_Art_2", "test_Fine_Art_2", "choice", "Which wood is it?", ("oak", "elm"), "B", ()),
            (
                *("test_Fine_Art_3", "test_Fine_Art_3", "open", "How heavy is it? Please give it in grams."),
                *((), "5.5", ()),
            ),
        ],
    ),
    Example(
        "vsi-bench",
        "test.jsonl",
        [
            {
                "id": number,
                "dataset": "rooms",
                "scene_name": "s1",
                "question_type": kind,
                "question": "How far is the lamp?",
                "ground_truth": truth,
                "options": options,
            }
            for number, kind, truth, options in [
                (0, "object_abs_distance", "2.5", None),
                (1, "object_rel_direction_hard", "B", ["A. left", "B. right"]),
                (2, "object_counting", "", None),
            ]
        ],
        [
            ("0", "rooms/s1", "number", "How far is the lamp?", (), "2.5", ()),
            ("1", "rooms/s1", "choice", "How far is the lamp?", ("left", "right"), "B", ()),
            "no answer",
        ],
    ),
    Example(
        "perception-test",
        "validation-00000-of-00001.parquet",
        [
            {
                "video_name": "video_3",
                "question": "Which cup hides it?",
                "question_id": 4,
                "options": ["the left", "2", "the right"],
                "answer_id": place,
                "area": "memory",
                "reasoning": "descriptive",
                "tag": ["sequencing"],
            }
            for place in ("1", "3", None)
        ],
        [
            ("video_3/4", "video_3", "choice", "Which cup hides it?", ("the left", "2", "the right"), "B", ()),
            "answer is none of the options",
            "no answer",
        ],
    ),
    Example(
        "perception-test",
        "all_train.json",
        {
            "video_3": {
                "metadata": {"split": "train", "num_frames": 300, "frame_rate": 30.0},
                "mc_question": [
                    {
                        "id": 0,
                        "question": "Which cup?",
                        "options": ["left", "mid", "right"],
                        "answer_id": 2,
                        "area": "memory",
                    },
                    3,
                ],
            },
            "video_4": {"metadata": {}, "mc_question": None},
            "video_5": {"metadata": {}, "mc_question": []},
        },
        [
            ("video_3/0", "video_3", "choice", "Which cup?", ("left", "mid", "right"), "C", ()),
            "unexpected entry",
            "unexpected entry",
        ],
    ),
]
