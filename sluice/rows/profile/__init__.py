"""What a dataset is like, in numbers, and which of its rows repeat others; formats and tasks are not known here.

The page of it is `sluice.rows.profile.report.report`, which needs the extra `report`.
"""

from sluice.rows.profile.describe import StatisticsPass, TokenizerError, statistics
from sluice.rows.profile.difference import Difference, count_new, difference
from sluice.rows.profile.duplicates import Duplicates, DuplicatesPass, Twin, find_duplicates
from sluice.rows.profile.figures import Statistics
from sluice.rows.profile.preview import preview

__all__ = [
    "Difference",
    "Duplicates",
    "DuplicatesPass",
    "Statistics",
    "StatisticsPass",
    "TokenizerError",
    "Twin",
    "count_new",
    "difference",
    "find_duplicates",
    "preview",
    "statistics",
]
