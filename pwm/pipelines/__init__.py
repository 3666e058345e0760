"""Many commands as one: quickstart, growth in rounds, jobs."""
