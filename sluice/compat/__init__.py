"""The names that the seed documents use, over the same client; nothing is decided here."""

from sluice.compat.dataset_hub import DatasetHub

__all__ = ["DatasetHub"]
