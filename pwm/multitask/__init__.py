"""How one model is shared by many tasks."""
