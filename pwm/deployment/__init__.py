"""Policies and world models as files that run without this project."""
