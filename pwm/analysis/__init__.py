"""How the tasks of a world model relate to one another."""
