"""Runs all services on one machine: files, keys, ports, processes. What they do it does not know."""
