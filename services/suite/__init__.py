"""Runs all services on one machine: files and keys of the first start, ports, processes. Knows nothing of what they do."""
