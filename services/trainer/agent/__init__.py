"""The agent of one attempt: stages inputs, runs the recipe, reports, uploads. No torch, no database."""
