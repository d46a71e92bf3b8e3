"""Formats and row validation, pure: the dataset service and `sluice dataset validate` use the same."""

from sluice.rows.convert import SPLITS, Outcome, convert, row_digest, split_of
from sluice.rows.files import UnknownFormatError, check_file_name, read_rows
from sluice.rows.schemas import SCHEMAS, check_row
from sluice.rows.violations import Violation

__all__ = [
    "SCHEMAS",
    "SPLITS",
    "Outcome",
    "UnknownFormatError",
    "Violation",
    "check_file_name",
    "check_row",
    "convert",
    "read_rows",
    "row_digest",
    "split_of",
]
