"""How near an answer is to the truth: mean relative accuracy of numbers, ROUGE-L of texts, IoU of spans."""

import math
import re
from collections.abc import Sequence

_LEVELS = 10
_STEP = 0.05
_NOISE = 1e-9  # of a relative error: decimal fractions such as 0.95 have no exact binary form

# Words of letters and digits of any script; a character of a script without spaces is a word of its own.
_WORD = re.compile(r"[぀-ヿ㐀-鿿가-힣]|[^\W_぀-ヿ㐀-鿿가-힣]+")


def temporal_iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Temporal intersection over union of two spans, in [0, 1], symmetric, and 1 only when they are equal.

    Args:
        a, b: (start, end), finite, both in one unit; swapped ends are put in order.
    """
    (a0, a1), (b0, b1) = sorted(map(float, a)), sorted(map(float, b))
    if not all(map(math.isfinite, (a0, a1, b0, b1))):
        raise ValueError(f"spans must be finite, got {a} and {b}")
    if (a0, a1) == (b0, b1):
        return 1.0
    inside = min(a1, b1) - max(a0, b0)
    if inside <= 0:
        return 0.0
    # The union of overlapping spans is their hull. Differences below float precision still are differences.
    return min(inside / (max(a1, b1) - min(a0, b0)), math.nextafter(1.0, 0.0))


def boundary_iou(a: Sequence[float], b: Sequence[float], duration_s: float) -> float:
    """IoU * (1 - |start distance| / T) * (1 - |end distance| / T), in [0, 1], never above IoU (Time-R1's reward).

    Args:
        a, b: (start, end), seconds; swapped ends are put in order.
        duration_s: T, of the video or of the part that is asked about; a factor below 0 counts as 0.

    Raises:
        ValueError: a duration that is not finite and positive.
    """
    if not (math.isfinite(duration_s) and duration_s > 0):
        raise ValueError(f"expected a duration above 0 s, got {duration_s}")
    (a0, a1), (b0, b1) = sorted(map(float, a)), sorted(map(float, b))
    left, right = (max(0.0, 1.0 - abs(x - y) / duration_s) for x, y in ((a0, b0), (a1, b1)))
    return temporal_iou(a, b) * left * right


def mean_relative_accuracy(predicted: float, true: float) -> float:
    """MRA, as VSI-Bench scores numbers: share of t in {.50, .55, ..., .95} with |predicted - true| / |true| <= 1 - t.

    1 within 5 % of the truth, 0 beyond 50 %. For true = 0, where the relative error has no meaning: 1 when equal.

    Args:
        predicted, true: finite, in one unit.
    """
    if true == 0.0:
        return float(predicted == 0.0)
    error = abs(predicted - true) / abs(true)
    return sum(error <= _STEP * level + _NOISE for level in range(1, _LEVELS + 1)) / _LEVELS


def words(text: str) -> list[str]:
    """The words that ROUGE counts: lower case, without punctuation; for ASCII those of the library's own tokenizer."""
    return _WORD.findall(text.lower())


def rouge_l(predicted: str, true: str) -> float:
    """ROUGE-L F1 of two texts, 0..1: harmonic mean of the shares of words in their longest common subsequence.

    Equal to rouge_score's, without stemming, to the bit. Texts without a word have 0.
    """
    said, asked = words(predicted), words(true)
    common = common_subsequence(said, asked)
    if not common:
        return 0.0
    precision, recall = common / len(said), common / len(asked)
    return 2 * precision * recall / (precision + recall)


def common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence, by rows of bits (Crochemore et al., 2001).

    One machine word holds 30 cells of the table that rouge_score fills one by one in Python: an answer of 100,000 words
    against a truth of 1,000 takes a fraction of a second instead of a minute.
    """
    places: dict[str, int] = {}
    for place, word in enumerate(b):
        places[word] = places.get(word, 0) | 1 << place
    full = (1 << len(b)) - 1
    row = full  # bit j is 0 where the subsequence grows with word j of b
    for word in a:
        if match := row & places.get(word, 0):
            row = ((row + match) | (row - match)) & full
    return len(b) - row.bit_count()
