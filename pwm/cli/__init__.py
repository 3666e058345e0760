"""From the words of a command line to a function call."""
