"""Agents played in the simulators, planning included, and their scores."""
