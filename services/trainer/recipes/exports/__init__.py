"""Recipes that train nothing: each writes a model version in one other form and measures what that changed."""
