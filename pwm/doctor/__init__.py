"""What this machine and this installation can do: ``pwm doctor``.

Every fact is asked for on its own, so that on an odd machine one that cannot be found out is a line
among the others. Modules import torch and the simulators inside functions: the command works where
they are missing or broken.
"""
