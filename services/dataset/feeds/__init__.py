"""Feeds: rows that come a few at a time, gathered into uploads; what rows mean is not known here."""
