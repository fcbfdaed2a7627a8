"""The tables of a store: every column's name, type, unit and meaning, in one place."""

import pyarrow as pa

STORE_VERSION = 3

TASKS = ("choice", "grounding", "grounded_choice", "number", "open")
"""What a sample asks for: an option, a span, an option and a span, a number, or free text."""

WAITING = "waiting-"
"""A video_id that begins so stands for a video that is not here yet; its samples wait, and no other table has it."""

SPAN = pa.list_(pa.float64())


def _field(name: str, type_: pa.DataType, meaning: str, **extra: str) -> pa.Field:
    return pa.field(name, type_, metadata={"meaning": meaning, **extra})


FINGERPRINT = _field("fingerprint", pa.string(), "hash of everything that determines this row")

VIDEOS = pa.schema(
    [
        _field("video_id", pa.string(), "hash of the file's content"),
        _field("path", pa.string(), "where the file was found"),
        _field("codec", pa.string(), "codec name, e.g. h264"),
        _field("bytes", pa.int64(), "file size in bytes"),
        _field("width", pa.int32(), "width in pixels after rotation"),
        _field("height", pa.int32(), "height in pixels after rotation"),
        _field("rotation", pa.int32(), "rotation that decoding applies, degrees"),
        _field("fps", pa.float64(), "average frames a second"),
        _field("duration_s", pa.float64(), "from the first frame's start to the last frame's end, seconds"),
        _field("frame_count", pa.int64(), "frames that the container announces as shown"),
        _field("variable_rate", pa.bool_(), "true when the gaps between frames differ"),
        _field("status", pa.string(), "ok, or what is unusual about the file"),
        FINGERPRINT,
    ]
)

SAMPLES = pa.schema(
    [
        _field("sample_id", pa.string(), "stable id: hash of source, row id and content"),
        _field("source", pa.string(), "name of the annotation source"),
        _field("dataset", pa.string(), "the dataset or benchmark that the source belongs to, e.g. nextgqa"),
        _field("split", pa.string(), "train, val, test or a name of the user's own"),
        _field("video_id", pa.string(), "the video that the question is about"),
        _field("task", pa.string(), "choice, grounding, grounded_choice, number or open"),
        _field("question", pa.string(), "the question's text, without options and instructions"),
        _field("options", pa.list_(pa.string()), "texts of the options, without letters; empty when there are none"),
        _field("answer", pa.string(), "letter for choices, text otherwise; empty for pure grounding"),
        _field(
            "spans", pa.list_(SPAN), "true spans [[start_s, end_s]] of the answer, seconds, ascending; may be empty"
        ),
        _field("clip", SPAN, "[start_s, end_s]: the part of the video that the question is about; empty: all of it"),
        _field("origin", pa.string(), "the original row, as JSON"),
        FINGERPRINT,
    ]
)

FRAMES = pa.schema(
    [
        _field("video_id", pa.string(), "the video"),
        _field("index", pa.int32(), "position among the cached frames of this video, from 0"),
        _field("time_s", pa.float64(), "true presentation time, seconds from the first frame's start"),
        _field("height", pa.int32(), "pixels"),
        _field("width", pa.int32(), "pixels"),
        _field("codec", pa.string(), "raw (RGB bytes, row by row) or jpeg"),
        _field("checksum", pa.uint64(), "xxh3 of `pixels`"),
        _field("backend", pa.string(), "the decoder that produced it"),
        _field(
            "pixels", pa.large_binary(), "height x width x 3 uint8, or a JPEG", **{"lance-encoding:compression": "none"}
        ),
        FINGERPRINT,
    ]
)

FRAME_EMBEDDINGS = pa.schema(
    [
        _field("video_id", pa.string(), "the video"),
        _field("scorer", pa.string(), "the image-text model"),
        _field("dim", pa.int32(), "length of one embedding"),
        _field("embeddings", pa.list_(pa.float16()), "n_frames x dim, flattened; unit length"),
        FINGERPRINT,
    ]
)

FRAME_SCORES = pa.schema(
    [
        _field("sample_id", pa.string(), "the sample"),
        _field("scorer", pa.string(), "the image-text model"),
        _field("scores", pa.list_(pa.float32()), "cosine of question and frame, over all windows, one a cached frame"),
        _field("windows", pa.int32(), "pieces that the question was split into to fit the model's context"),
        _field("cut_tokens", pa.int32(), "tokens of what was scored that no piece holds (0: nothing was cut)"),
        FINGERPRINT,
    ]
)

VARIANT_FIELDS = [
    _field("variant", pa.int32(), "0 is the anchor"),
    _field(
        "kind", pa.string(), "anchor, importance, or coverage (scores did not choose: they told nothing, or by wish)"
    ),
    _field("indices", pa.list_(pa.int32()), "cached frames, ascending"),
    _field("times", pa.list_(pa.float64()), "their true times, seconds"),
    _field(
        "crop", pa.list_(pa.float32()), "left, top, right, bottom as shares of the frame: [0, 0, 1, 1] is all of it"
    ),
    _field("scale", pa.float32(), "share of the resolution that is kept; 1 is all of it"),
    _field("seed", pa.int64(), "seed that drew it"),
    _field("coverage", pa.float64(), "largest part of the video without a frame, as a share of its length"),
    _field("overlap", pa.float64(), "mean Jaccard index of its frames with those of each earlier view; anchor: 0"),
]

VARIANTS = pa.schema(
    [
        _field("sample_id", pa.string(), "the sample"),
        _field("video_id", pa.string(), "the video"),
        *VARIANT_FIELDS,
        FINGERPRINT,
    ]
)

ROLLOUTS = pa.schema(
    [
        _field("sample_id", pa.string(), "the sample"),
        _field("variant", pa.int32(), "the view that the policy saw; -1: no frame at all (blind), -2: one frame"),
        _field("draw", pa.int32(), "0, 1, ... K-1"),
        _field("policy", pa.string(), "fingerprint of the policy"),
        _field("seed", pa.int64(), "seed that drew it"),
        _field("text", pa.string(), "the response"),
        _field("tokens", pa.int32(), "its length in tokens"),
        _field("logprob", pa.float64(), "sum of the log-probabilities of its tokens; null when an endpoint gives none"),
        _field("accuracy", pa.float64(), "reward part: 1 for the right answer, else 0; null where the task has none"),
        _field("credit", pa.float64(), "reward part: partial credit, 0..1 (number: MRA, open: ROUGE-L); else null"),
        _field("iou", pa.float64(), "reward part: temporal IoU, 0..1; null where the task has none"),
        _field("boundary_iou", pa.float64(), "reward part: IoU weighted by boundary distances, 0..1; else null"),
        _field("format", pa.float64(), "reward part: 1 when the response keeps the format"),
        _field("parse_error", pa.string(), "why the answer could not be read; empty when it could"),
        FINGERPRINT,
    ]
)

STATISTICS = [
    _field("policy", pa.string(), "fingerprint of the policy that was measured"),
    _field("draws", pa.int32(), "rollouts on views that the statistics stand on"),
    _field("reward_mean", pa.float64(), "mean reward (accuracy and IoU, without format) over the draws"),
    _field("reward_low", pa.float64(), "lower end of its 95 % interval (Wilson)"),
    _field("reward_high", pa.float64(), "upper end of its 95 % interval (Wilson)"),
    _field("reward_var", pa.float64(), "population variance of the reward over the draws"),
    _field("between_share", pa.float64(), "share of that variance between views; null when one view was seen"),
    _field("format_rate", pa.float64(), "share of draws in the right format"),
    _field("blind_draws", pa.int32(), "rollouts without any frame"),
    _field("blind_mean", pa.float64(), "their mean reward; null without them"),
    _field("one_frame_draws", pa.int32(), "rollouts with one frame"),
    _field("one_frame_mean", pa.float64(), "their mean reward; null without them"),
    _field("weight", pa.float64(), "how often the trainer draws the sample, relative to the others; 1 when cut"),
]

CURATED = pa.schema(
    [
        *[f for f in SAMPLES if f.name not in ("origin", "fingerprint")],
        _field("variants", pa.list_(pa.struct(VARIANT_FIELDS)), "the M views, anchor first"),
        _field("frames_fingerprint", pa.string(), "fingerprint of the cached frames that the views index"),
        *STATISTICS,
        FINGERPRINT,
    ]
)

VERDICTS = pa.schema(
    [
        *[SAMPLES.field(name) for name in ("sample_id", "source", "dataset", "split", "video_id", "task")],
        _field("reason", pa.string(), "why the sample was left out; empty: kept"),
        *[f.with_nullable(True) for f in STATISTICS],
    ]
)
"""One row for every sample of the pool that a tag was selected from; statistics are null where nothing was drawn."""

OVERLAPS = pa.schema(
    [
        _field("kind", pa.string(), "duplicates (inside a set) or leaks (training and evaluation)"),
        _field("of", pa.string(), "video or question"),
        _field("a", pa.string(), "video_id or sample_id: the one to keep; of leaks the training one"),
        _field("b", pa.string(), "video_id or sample_id: the lesser twin; of leaks the evaluation one"),
        _field("by", pa.string(), "content (the same file, the same words), embedding (videos) or text (questions)"),
        _field("similarity", pa.float64(), "likeness of the two, at most 1 (pipeline.likeness); 1 by content"),
        _field("shift_s", pa.float64(), "where the start of video b lies on the time of video a, seconds"),
        FINGERPRINT,
    ]
)

OVERLAP_CHECKS = pa.schema(
    [
        _field("kind", pa.string(), "duplicates or leaks"),
        _field("recipe", pa.string(), "how was looked: scorer, thresholds, against what, as JSON"),
        FINGERPRINT,
    ]
)

QUARANTINE = pa.schema(
    [
        _field("stage", pa.string(), "the stage that failed, or kept less than was wanted"),
        _field("key", pa.string(), "the item's key"),
        _field("reason", pa.string(), "short class of the failure, for counting"),
        _field("message", pa.string(), "the whole message"),
        _field("kept", pa.bool_(), "true: a note, the item's rows were kept in spite of it"),
        FINGERPRINT,
    ]
)

TABLES: dict[str, pa.Schema] = {
    "videos": VIDEOS,
    "samples": SAMPLES,
    "frames": FRAMES,
    "frame_embeddings": FRAME_EMBEDDINGS,
    "frame_scores": FRAME_SCORES,
    "variants": VARIANTS,
    "rollouts": ROLLOUTS,
    "overlaps": OVERLAPS,
    "overlap_checks": OVERLAP_CHECKS,
    "quarantine": QUARANTINE,
}

KEYS: dict[str, tuple[str, ...]] = {
    "videos": ("video_id",),
    "samples": ("sample_id",),
    "frames": ("video_id",),
    "frame_embeddings": ("video_id",),
    "frame_scores": ("sample_id",),
    "variants": ("sample_id",),
    "rollouts": ("sample_id", "variant", "draw"),
    "overlaps": ("kind", "of", "a", "b"),
    "overlap_checks": ("kind",),
    "quarantine": ("stage", "key"),
}
"""The columns that name one item of work: a stage writes all rows of an item in one commit."""
