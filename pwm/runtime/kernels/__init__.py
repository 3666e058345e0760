"""LayerNorm with its activation as one pass over memory: in C for a CPU, in Triton for a GPU."""
