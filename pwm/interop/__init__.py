"""Data and checkpoints of TD-MPC2, PWM and Minari, in and out."""
