"""``python -m services up|down|status``: the whole suite on one machine."""

from services.suite.command import main

if __name__ == "__main__":
    main()
