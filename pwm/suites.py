"""The name that ``pwm.core.suites`` had before; it goes with version 0.3."""

import warnings

from pwm.core.suites import Suite, Task, get_suite, get_task

__all__ = ["Suite", "Task", "get_suite", "get_task"]

warnings.warn(
    "pwm.suites goes with version 0.3; use `from pwm import Suite, Task, get_suite, get_task`.",
    DeprecationWarning,
    stacklevel=2,
)
