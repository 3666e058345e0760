"""Stepping simulators to make data."""
