"""``python -m sluice.cli`` is the command `sluice`."""

from sluice.cli import main

main()
