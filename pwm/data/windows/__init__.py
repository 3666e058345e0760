"""Samplers: windows of H steps of recorded episodes as padded batches."""
