"""The exceptions that are shown to a user as a single sentence, without a traceback."""


class PwmError(Exception):
    """A mistake or fault that the user can act on.

    The message is one sentence group that says what was wrong, what was expected and what to do.
    The command line prints it and exits with code 1; library callers see an ordinary exception.
    """


class SimulatorError(PwmError):
    """A simulator failed, which it may not do again when the episode is run anew."""
