"""Presidio's pattern recognizers on a blank spaCy model: nothing is downloaded, and no model judges anything.

Presidio checks e-mail domains with `tldextract`, which by default asks the network for the list of suffixes; here it
only reads the list that it carries. Its patterns know ASCII only and take a Chinese neighbor for a letter of the same
word, so they get the text with everything else blanked out, character by character.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kit.rpc.errors import Invalid
from sluice.rows.deidentify.recognizers.contract import Recognizer, Span
from sluice.rows.deidentify.recognizers.rules import digits

if TYPE_CHECKING:
    from presidio_analyzer import AnalyzerEngine, EntityRecognizer

LEAST_SCORE = 0.5
#: Characters that are looked at together, since spaCy takes no million (its E088) and the time grows with the square;
#: and how much of what stands around them is looked at as well: more than a number or an address is long.
PIECE, AROUND = 4_000, 400
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
#: Where both find the same thing it has one name.
_KINDS = {"CREDIT_CARD": "BANK_CARD", "EMAIL_ADDRESS": "EMAIL", "PHONE_NUMBER": "PHONE"}
_HINT = "|".join([digits(7), "[@＠]", "[:：][/／]{2}", "[A-Z]{2}[0-9]{2}", "[0-9][.．][0-9]{1,3}[.．][0-9]"])
_HINTED = re.compile(_HINT)


class Presidio:
    """The recognizer; its first use loads spaCy, which takes seconds."""

    def __init__(self, engine: AnalyzerEngine, language: str) -> None:
        self._engine = engine
        self._language = language
        self._whole = threading.Lock()  # the frames of a file are looked at in threads, and spaCy does not say it may

    def hints(self) -> Sequence[str]:
        return [_HINT]

    def find(self, text: str, hint: int) -> list[Span]:
        text = _NOT_ASCII.sub(" ", text)
        return [span for start in range(0, len(text), PIECE) for span in self._find_from(text, start)]

    def _find_from(self, text: str, start: int) -> list[Span]:
        """What begins in one piece of a text; it may end in the next."""
        before = max(0, start - AROUND)
        piece = text[before : start + PIECE + AROUND]
        if not _HINTED.search(piece):
            return []
        with self._whole:
            found = self._engine.analyze(piece, self._language, score_threshold=LEAST_SCORE)
        return [
            Span(_KINDS.get(each.entity_type, each.entity_type), before + each.start, before + each.end)
            for each in found
            if start <= before + each.start < start + PIECE
        ]


def presidio(language: str = "en") -> Recognizer:
    """The recognizer, on the tokens of ``language`` (`en` or `zh`). Raises Invalid where Presidio is not installed."""
    try:
        import presidio_analyzer
        import spacy
        from presidio_analyzer.nlp_engine import SpacyNlpEngine
    except ModuleNotFoundError as error:
        raise Invalid(
            f"recognizer `presidio` needs the package `{error.name}`; install the suite with the extra `deid`"
        ) from None
    nlp: Any = SpacyNlpEngine(models=[{"lang_code": language, "model_name": "blank"}])
    nlp.nlp = {language: spacy.blank(language)}  # what its load() would download a model for
    registry = presidio_analyzer.RecognizerRegistry(_recognizers(language), supported_languages=[language])
    return Presidio(presidio_analyzer.AnalyzerEngine(registry, nlp, supported_languages=[language]), language)


def _recognizers(language: str) -> list[EntityRecognizer]:
    """Presidio's patterns for numbers that are checked, or sure by their form."""
    import tldextract
    from presidio_analyzer import predefined_recognizers as known

    offline = tldextract.TLDExtract(cache_dir=None, suffix_list_urls=())

    class Email(known.EmailRecognizer):
        def validate_result(self, pattern_text: str) -> bool:
            return bool(offline(pattern_text).fqdn)

    #: Those of a bare host take the beginning of many a word for one.
    addresses = [pattern for pattern in known.UrlRecognizer.PATTERNS if "https?://" in pattern.regex]
    return [
        *(
            kind(supported_language=language)
            for kind in (
                known.CreditCardRecognizer,
                known.IbanRecognizer,
                known.UsSsnRecognizer,
                known.IpRecognizer,
                Email,
            )
        ),
        known.UrlRecognizer(patterns=addresses, supported_language=language),
    ]
