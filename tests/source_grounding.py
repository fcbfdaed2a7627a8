"""Example files of formats that ask for moments. All text is made up."""

from tests.source_files import Example

GROUNDING = [
    Example(
        "temporal-r1",
        "tvg_train.yaml",
        {
            "datasets": [
                {"json_path": "one.json", "data_folder": "clips/one/", "sampling_strategy": "end:1"},
                {"json_path": "two.json", "data_folder": "clips/two", "sampling_strategy": "first:50%"},
            ]
        },
        [
            ("0", "clips/one/b.mp4", "grounding", "a jar is opened", (), "", ((0.25, 0.5),)),
            ("1", "clips/two/c.mp4", "grounding", "a hat falls", (), "", ((0.0, 1.0),)),
            "unreadable span",
        ],
        {
            "one.json": [
                {"dataset": "made_train", "video": "a.mp4", "problem": "unused", "solution": [0.1, 0.2]},
                {
                    "dataset": "made_train",
                    "video": "b.mp4",
                    "problem": 'Give the query: "a jar is opened", when does it happen in the video?',
                    "solution": [0.5, 0.25],
                    "video_length": 12,
                },
            ],
            "two.json": [
                {"dataset": "made_test", "video": "c.mp4", "problem": "a hat falls", "solution": "[0.0, 1.0]"},
                {"dataset": "made_test", "video": "c.mp4", "problem": "a hat falls", "solution": "soon"},
                {"dataset": "made_test", "video": "d.mp4", "problem": "unused", "solution": [0, 1]},
            ],
        },
    ),
    Example(
        "temporal-r1",
        "charades_tvg.json",
        [
            {
                "dataset": "x",
                "video": "a.mp4",
                "problem": "a jar is opened",
                "solution": [0.1, 0.2],
                "video_length": 8.5,
            },
            {"dataset": "x", "video": "a.mp4", "problem": "a jar is opened", "solution": [0.2, 0.2]},
        ],
        [("0", "a.mp4", "grounding", "a jar is opened", (), "", ((0.1, 0.2),)), "span without length"],
    ),
    Example(
        "time-r1",
        "train_2k5.json",
        [
            {"video": "a", "timestamp": [1, 4.5], "sentence": " a jar is opened", "duration": 9, "qid": "q1"},
            {
                "video": "b",
                "timestamp": [1, 4],
                "sentence": "a hat falls",
                "duration": 60,
                "qid": "q2",
                "video_start": 30,
                "video_end": 50,
            },
            {"video": "b", "timestamp": None, "sentence": "a hat falls", "duration": 60, "qid": "q3"},
        ],
        [
            ("q1", "a", "grounding", "a jar is opened", (), "", ((1.0, 4.5),)),
            ("q2", "b", "grounding", "a hat falls", (), "", ((1.0, 4.0),)),
            "no span",
        ],
    ),
    Example(
        "tvgbench",
        "tvgbench.json",
        [
            {
                "path": "a.mp4",
                "question": "a hat falls",
                "answer": answer,
                "duration": 9,
                "question_type": "t",
                "qsemtype": "s",
            }
            for answer in ("1.25-4.000000001", "4-4", "4 to 5", "[[1, 2], [3, 4]]")
        ],
        [
            ("0", "a.mp4", "grounding", "a hat falls", (), "", ((1.25, 4.000000001),)),
            "span without length",
            "unreadable span",
            "unreadable span",
        ],
    ),
    Example(
        "charades-sta",
        "charades_sta_test.txt",
        [
            "AAAAA 0.0 6.5##a hat falls.",
            "AAAAA 9 3.5##a jar is # opened.",
            "AAAAA 3 b##a hat falls.",
            "AAAAA 3 4 a hat falls.",
        ],
        [
            ("0", "AAAAA", "grounding", "a hat falls.", (), "", ((0.0, 6.5),)),
            ("1", "AAAAA", "grounding", "a jar is # opened.", (), "", ((3.5, 9.0),)),
            "unreadable time",
            "unreadable line",
        ],
        {"Charades_v1_test.csv": [{"id": "AAAAA", "length": "30.5"}]},
    ),
    Example(
        "activitynet",
        "val_2.json",
        {
            "v_a": {
                "duration": 20.5,
                "timestamps": [[0, 3], [5, 4]],
                "sentences": [" A hat falls.", "A jar is opened.", "!"],
            },
            "v_b": {"duration": 9, "timestamps": [[2, 2]], "sentences": ["A hat falls."]},
            "v_c": {"duration": 9, "timestamps": None, "sentences": []},
            "v_d": {"duration": 9, "timestamps": [], "sentences": []},
        },
        [
            ("v_a/0", "v_a", "grounding", "A hat falls.", (), "", ((0.0, 3.0),)),
            ("v_a/1", "v_a", "grounding", "A jar is opened.", (), "", ((4.0, 5.0),)),
            "no span",
            "span without length",
            "unexpected entry",
        ],
    ),
    Example(
        "tacos",
        "train.json",
        {
            "s1-d1.avi": {
                "timestamps": [[0, 50], [100, 75]],
                "sentences": ["She cuts a leek.", "She rinses it."],
                "fps": 25.0,
                "num_frames": 500,
            },
            "s1-d2.avi": {"timestamps": [[0, 50]], "sentences": ["He sits."], "fps": 0, "num_frames": 500},
            "s1-d3.avi": {"timestamps": [[1e300, 2e300]], "sentences": ["He sits."], "fps": 1e-300, "num_frames": 1},
        },
        [
            ("s1-d1.avi/0", "s1-d1.avi", "grounding", "She cuts a leek.", (), "", ((0.0, 2.0),)),
            ("s1-d1.avi/1", "s1-d1.avi", "grounding", "She rinses it.", (), "", ((3.0, 4.0),)),
            "no frame rate",
            "unreadable frame rate",
        ],
    ),
    Example(
        "qvhighlights",
        "highlight_val_release.jsonl",
        [
            {
                "qid": 8,
                "query": "a tram passes",
                "duration": 150,
                "vid": "-x_60.0_210.0",
                "relevant_windows": [[80, 150], [2, 6]],
            },
            {"qid": 9, "query": "a tram passes", "duration": 150, "vid": "-x_60.0_210.0"},
        ],
        [("8", "-x_60.0_210.0", "grounding", "a tram passes", (), "", ((2.0, 6.0), (80.0, 150.0))), "no span"],
    ),
]
