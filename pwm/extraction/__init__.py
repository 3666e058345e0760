"""Policies from a frozen world model, by first-order gradients and by cloning."""
