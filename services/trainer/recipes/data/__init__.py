"""From rows to batches of token ids or pixels; knows no trainer."""
