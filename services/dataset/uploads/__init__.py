"""An upload on its way: chunks, staged bytes, demands, its check, and how many of its rows are new."""
