"""Playing agents in the simulators, and scores of what they did."""
