"""The episode store and what is drawn from it."""
