"""The engine agent of one host: it fetches weights, runs engines and loads adapters; it knows no route."""
