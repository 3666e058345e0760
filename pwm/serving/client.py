"""Asking a server of ``pwm serve`` for actions."""

from __future__ import annotations

from typing import Any, Self

import msgspec
import numpy as np

from pwm.core.errors import PwmError
from pwm.serving.messages import Array, Reply, Request, zeromq

_RELOAD = 120.0  # seconds that opening many policies may take


class PolicyClient:
    """One connection to a server, for one thread; an answer may take ``timeout`` seconds.

    The answer to :meth:`reload` may take two minutes if that is more.
    """

    def __init__(self, address: str = "tcp://127.0.0.1:5555", timeout: float = 5.0) -> None:
        self._zmq = zeromq()
        self.address, self._timeout = address, timeout
        self._socket = self._zmq.Context.instance().socket(self._zmq.REQ)
        self._socket.setsockopt(self._zmq.LINGER, 0)
        # A question that got no answer is given up, and a late answer to it is not taken.
        self._socket.setsockopt(self._zmq.REQ_RELAXED, 1)
        self._socket.setsockopt(self._zmq.REQ_CORRELATE, 1)
        self._socket.connect(address)

    def act(self, obs: Any, task: str | None = None) -> np.ndarray:
        """Observations (obs_dim,) or (n, obs_dim) to actions, as ``policy.act`` gives them.

        ``task`` is whose policy acts, not needed where the server has one. Raises PwmError if the
        server refuses, or does not answer in time.
        """
        action = self._ask(Request("act", task, Array.of(obs))).action
        assert action is not None
        return action.numpy()

    def health(self) -> dict[str, Any]:
        """The server's tasks, version, seconds since its start and number of questions served."""
        return self._ask(Request("health")).facts or {}

    def reload(self) -> dict[str, Any]:
        """Have the server open its policies anew, and give its health after that."""
        return self._ask(Request("reload"), max(self._timeout, _RELOAD)).facts or {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()

    def _ask(self, request: Request, timeout: float | None = None) -> Reply:
        seconds = self._timeout if timeout is None else timeout
        self._socket.send(msgspec.msgpack.encode(request))
        if not self._socket.poll(round(1000 * seconds)):
            late = f"no answer from {self.address} within {seconds:g} s"
            raise PwmError(f"{late}; check that pwm serve runs there, or give a longer timeout.")
        reply = msgspec.msgpack.decode(self._socket.recv(), type=Reply)
        if reply.error is not None:
            raise PwmError(reply.error)
        return reply
