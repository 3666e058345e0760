"""What every package, ``envs`` included, may use; it imports neither torch nor a simulator."""
