"""Rows in files: formats, rules and parts, pure; the dataset service and `sluice dataset validate` use the same.

What is imported here is light. `sluice.rows.convert` and `sluice.rows.parts` bring Arrow and Polars along: import
them where there are rows to look at.
"""

from sluice.rows.names import ROWS_OF_TASK, SPLITS, UnknownFormatError, check_file_name
from sluice.rows.schemas import SCHEMAS, check_row
from sluice.rows.violations import Violation

__all__ = ["ROWS_OF_TASK", "SCHEMAS", "SPLITS", "UnknownFormatError", "Violation", "check_file_name", "check_row"]
