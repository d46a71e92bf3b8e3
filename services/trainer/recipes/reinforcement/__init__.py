"""Answers that a model gives itself, what they are worth, and steps made on them."""
