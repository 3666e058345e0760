"""What every training run needs, whatever it trains: devices, checkpoints, metrics."""
