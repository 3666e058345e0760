"""One world model from an episode store."""
