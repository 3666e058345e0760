"""A policy behind a small server that many clients ask for actions: ``pwm serve``.

`messages` is what client and server say to each other, `server` answers, `client` asks. A client
needs NumPy, msgspec and pyzmq, and imports no torch.
"""
