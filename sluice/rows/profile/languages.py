"""Which languages a sample of texts is in, told offline by a library's model; texts without letters are in none."""

from collections import Counter
from collections.abc import Sequence

from msgspec import Struct

from sluice.rows.profile.sketches import wilson

#: Code of ISO 639-2 for texts that no language can be told of.
UNDETERMINED = "und"
#: Of a text that is told with less confidence nothing is told: figures and code get less, the shortest phrases more.
_CONFIDENCE = 0.15
#: What the detector's codes are counted as: no language is none that is told, and what is written in a variety of
#: Chinese is of the macrolanguage (ISO 639-3).
_COUNTED_AS = {"zxx": UNDETERMINED} | dict.fromkeys(("wuu", "yue", "gan", "hak", "nan", "lzh"), "zh")


class Language(Struct, frozen=True):
    """`code` by ISO 639-1, or `und`; the share of it among all texts lies from `low` to `high` with 95 %."""

    code: str
    count: int
    share: float
    low: float
    high: float


class Languages(Struct, frozen=True):
    """What a uniform sample of `sampled` texts is in, the most frequent first.

    The interval covers the drawing of the sample and not the mistakes of the detector, which are frequent on texts of a
    few words.
    """

    sampled: int
    shares: list[Language]


def languages(sample: Sequence[str]) -> Languages | None:
    """The languages of the texts of a sample; None for an empty sample.

    By py3langid, a naive Bayes model of 97 languages that comes inside its wheel (Lui and Baldwin, ACL 2012). It is
    loaded anew, in half a second, and freed again: it takes 80 MB.
    """
    if not sample:
        return None
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    detector = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True, min_confidence=_CONFIDENCE)
    codes = [detector.classify(text)[0] for text in sample]
    counts = Counter(_COUNTED_AS.get(code, str(code)) for code in codes)
    n = len(sample)
    ranked = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    return Languages(n, [Language(code, count, count / n, *wilson(count, n)) for code, count in ranked])
