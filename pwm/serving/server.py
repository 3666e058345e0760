"""``pwm serve``: one process that answers all clients, one question after the other.

Policies are opened anew beside that, in a thread of its own.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgspec
import torch
from omegaconf import MISSING

from pwm import __version__
from pwm.core.errors import PwmError, what_was_raised
from pwm.core.progress import console
from pwm.core.settings import require_inputs, setting
from pwm.core.signals import StopSignals
from pwm.models.policy import Policy
from pwm.models.policy_directory import find_policies
from pwm.serving.messages import Array, Reply, Request, zeromq

_LARGEST = 2**26  # bytes of a question, the observations in it included
_PATIENCE = 100  # milliseconds until it looks for signals where no one asks
_QUEUE = 1000  # questions that are answered after a signal to stop

_Sender = tuple[bytes, ...]
_BY_SIGNAL: _Sender = ()


@dataclass
class ServeConfig:
    """Settings of ``pwm serve``.

    Attributes:
        policy: a directory of policies, one per task, or one policy's directory.
        host: the network address to listen at; 127.0.0.1 lets in this machine alone, ``*`` any.
            Whoever reaches the port may ask.
        port: of TCP; 0 takes a free one.
    """

    policy: str = setting(MISSING, input_path=True)
    host: str = "127.0.0.1"
    port: int = 5555

    def validate(self) -> None:
        """Raise PwmError for a port that does not exist, or a policy that is not there."""
        if not 0 <= self.port < 2**16:
            raise PwmError(f"port={self.port} is no port of TCP; give one from 0 to 65535.")
        require_inputs(self)


class _Opening(NamedTuple):
    """Policies that are being opened, and who waits for it."""

    policies: Future[dict[str, Policy]]
    senders: list[_Sender]


class Server:
    """Policies at an address.

    Attributes:
        address: where clients connect.
        reload_asked: set to have the policies opened anew.
    """

    def __init__(self, config: ServeConfig) -> None:
        config.validate()
        zmq = zeromq()
        self._path = Path(config.policy)
        self._policies = find_policies(self._path)
        self._started, self._served = time.monotonic(), 0
        self.reload_asked = threading.Event()
        self._opener = ThreadPoolExecutor(1, "opener")
        self._opening: _Opening | None = None
        self._asked: list[_Sender] = []
        self._socket = zmq.Context.instance().socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.MAXMSGSIZE, _LARGEST)
        try:
            self._socket.bind(f"tcp://{config.host}:{config.port or '*'}")
        except zmq.ZMQError as error:
            self._socket.close(0)
            where = f"{config.host}:{config.port}"
            raise PwmError(f"cannot listen at {where} ({error}); give another port=.") from error
        self.address: str = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close(1000)  # milliseconds for answers that are under way
        self._opener.shutdown()

    def run(self, stopped: Callable[[], Any]) -> None:
        """Answer until ``stopped()``, and then what has come by then.

        While policies are opened anew those before answer; no question is lost.
        """
        while not stopped():
            if self.reload_asked.is_set():
                self.reload_asked.clear()
                self._asked.append(_BY_SIGNAL)
            self._go_on_opening()
            self._answer_one(_PATIENCE)
        for _ in range(_QUEUE):  # and not for as long as clients go on asking
            if not self._answer_one(0):
                break
        while self._asked or self._opening:
            if self._opening:
                wait([self._opening.policies])
            self._go_on_opening()

    def _answer_one(self, patience: int) -> bool:
        if not self._socket.poll(patience):
            return False
        *sender, question = self._socket.recv_multipart()
        if (reply := self._reply(question)) is None:
            self._asked.append(tuple(sender))
        else:
            self._send(tuple(sender), reply)
        return True

    def _send(self, sender: _Sender, reply: Reply) -> None:
        if sender == _BY_SIGNAL:
            console.print(reply.error or "Policies opened anew.")
        else:
            self._socket.send_multipart([*sender, msgspec.msgpack.encode(reply)])

    def _go_on_opening(self) -> None:
        """Takes policies that have been opened, and begins what was asked for meanwhile."""
        if self._opening and self._opening.policies.done():
            reply = self._told(self._take_opened)
            for sender in self._opening.senders:
                self._send(sender, reply)
            self._opening = None
        if self._asked and not self._opening:
            self._opening = _Opening(self._opener.submit(find_policies, self._path), self._asked)
            self._asked = []

    def _take_opened(self) -> Reply:
        assert self._opening
        self._policies = self._opening.policies.result()
        return self._facts()

    def _reply(self, question: bytes) -> Reply | None:
        """The answer; None to a question for a reload, which is answered when it has ended."""
        try:
            request = msgspec.msgpack.decode(question, type=Request)
        except msgspec.MsgspecError as error:
            return Reply(error=what_was_raised(error))
        if request.kind == "reload":
            return None
        if request.kind == "health":
            return self._facts()
        return self._told(lambda: Reply(action=self._act(request)))

    def _told(self, ask: Callable[[], Reply]) -> Reply:
        try:
            return ask()
        except Exception as error:  # one client's question must not end the service of the others
            known = isinstance(error, PwmError)
            return Reply(error=str(error) if known else what_was_raised(error))

    def _facts(self) -> Reply:
        seconds = round(time.monotonic() - self._started, 3)
        facts = {"tasks": list(self._policies), "pwm_version": __version__, "seconds": seconds}
        return Reply(facts={**facts, "served": self._served})

    def _act(self, request: Request) -> Array:
        only = next(iter(self._policies)) if len(self._policies) == 1 else ""
        policy = self._policies.get(request.task or only)
        if policy is None or request.obs is None:
            wanted = "task" if policy is None else "obs"
            raise PwmError(f"give {wanted}= of one of the tasks {', '.join(self._policies)}.")
        action = policy.act(request.obs.numpy())
        self._served += 1
        return Array.of(action)


def serve(config: ServeConfig) -> None:
    """Give actions of policies to clients over TCP until a signal stops it.

    SIGHUP, or a client, has it open its policies anew; where that fails it keeps those it has.

    Raises:
        PwmError: if there is no policy, or the address cannot be listened at.
        Interrupted: at SIGINT or SIGTERM, after it has answered what had come.
    """
    torch.set_num_threads(1)  # on single observations more threads wait for each other
    with Server(config) as server, StopSignals() as stop:
        before = signal.signal(signal.SIGHUP, lambda *_: server.reload_asked.set())
        console.print(f"Serving {config.policy} at {server.address}.")
        try:
            server.run(lambda: stop.requested)
        finally:
            signal.signal(signal.SIGHUP, before)
        stop.raise_if_requested("stopped serving; every question that had come is answered.")
