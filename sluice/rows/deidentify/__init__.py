"""De-identification of texts: what in them identifies people, and what they look like with that masked.

Cheap to import; what is heavy (Polars, Presidio) comes in with the first call that needs it. It stores nothing.
"""

from sluice.rows.deidentify.policy import Findings, Policy, look
from sluice.rows.deidentify.recognizers import RECOGNIZERS, Recognizer, Span, recognizers

__all__ = ["RECOGNIZERS", "Findings", "Policy", "Recognizer", "Span", "look", "recognizers"]
