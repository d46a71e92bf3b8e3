"""The evaluator: asks versions the rows of a suite through the serving engine, and scores answers; it gates nothing."""
