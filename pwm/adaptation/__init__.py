"""A world model for tasks that it has never seen."""
