"""Training recipes: processes that see a job directory and nothing else; none knows a service."""
