"""Policies, world models and bundles to the Hugging Face hub and back: ``pwm push``, ``pwm pull``.

A repository has what the commands open and nothing else: checkpoints, a packed sample of data if a
bundle has one, and a model card. `contents` decides which files these are and verifies them,
`card` describes them, and `service` is the only module that calls the hub.
"""
