"""World model, actor, critic and the deployable policy; no training loop."""
