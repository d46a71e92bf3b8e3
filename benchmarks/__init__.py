"""Figures of speed and size, each with its interval; no test waits for them and nothing of the suite imports them."""
