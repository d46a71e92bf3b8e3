"""The agent of one attempt: stages inputs, runs the recipe, reports, and uploads what it left. No torch, no database."""
