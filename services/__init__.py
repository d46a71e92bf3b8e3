"""The five services, and ``suite``, which runs them all on one machine."""
