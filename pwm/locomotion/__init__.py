"""Batched simulators of locomotion, which may be differentiated, and learners compared in them."""
