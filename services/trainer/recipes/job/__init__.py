"""A recipe's process and its job directory: what it is given, told and leaves, and how it fails; knows no task."""
