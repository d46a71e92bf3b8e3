"""The registry: who may do what, which models there are, and which of them may serve. Serves and trains nothing."""
