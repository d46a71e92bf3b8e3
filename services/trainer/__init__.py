"""The trainer service: jobs and the processes that run them."""
