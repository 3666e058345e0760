"""A real server over localhost, in a thread, with clients in others."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import numpy as np
import pytest
from deployable import ARM, CHEETAH, latent_policy, observation_policy

from pwm.core.errors import PwmError
from pwm.core.signals import Interrupted
from pwm.models.policy import load_policy
from pwm.serving import server as module
from pwm.serving.client import PolicyClient
from pwm.serving.messages import Array, Reply, Request
from pwm.serving.server import ServeConfig, Server, serve

zmq = pytest.importorskip("zmq", reason="needs the extra serve")


@contextmanager
def running(policy) -> Iterator[Server]:
    ended = threading.Event()
    with Server(ServeConfig(policy=str(policy), port=0)) as server:
        thread = threading.Thread(target=server.run, args=(ended.is_set,))
        thread.start()
        try:
            yield server
        finally:
            ended.set()
            thread.join()


@pytest.fixture
def policies(tmp_path):
    latent_policy(CHEETAH).save(tmp_path / "cheetah-run")
    observation_policy(ARM).save(tmp_path / "arm")
    return tmp_path


def test_two_clients_and_a_reload_between_their_questions(policies):
    path = policies / "arm"
    old, new = load_policy(path), latent_policy(ARM)
    rows = np.random.default_rng(0).normal(size=(2, 150, 3)).astype(np.float32)
    given: dict[int, list[np.ndarray]] = {0: [], 1: []}
    halfway = threading.Barrier(3)

    def ask(client_number: int) -> None:
        with PolicyClient(server.address, timeout=60) as client:
            for number, obs in enumerate(rows[client_number]):
                if number == 50:
                    halfway.wait(60)
                given[client_number].append(client.act(obs))

    with running(path) as server, PolicyClient(server.address, timeout=60) as operator:
        threads = [threading.Thread(target=ask, args=(number,)) for number in given]
        for thread in threads:
            thread.start()
        halfway.wait(60)
        new.save(path)
        assert operator.reload()["tasks"] == ["arm"]
        for thread in threads:
            thread.join()
        assert operator.health()["served"] == 300
        last = operator.act(rows[0])
    np.testing.assert_array_equal(last, new.act(rows[0]))
    for number, actions in given.items():
        assert len(actions) == 150
        by_old, by_new = ([p.act(obs) for obs in rows[number]] for p in (old, new))
        was_old = [np.array_equal(a, b) for a, b in zip(actions, by_old, strict=True)]
        changed = sum(was_old)
        assert was_old[:50] == [True] * 50
        np.testing.assert_array_equal(actions[changed:], by_new[changed:])


def test_the_task_is_named_where_there_are_several(policies):
    with running(policies) as server, PolicyClient(server.address) as client:
        obs = np.ones((4, 17), np.float32)
        expected = load_policy(policies / "cheetah-run").act(obs)
        np.testing.assert_array_equal(client.act(obs, "cheetah-run"), expected)
        assert client.health()["tasks"] == ["cheetah-run", "arm"]
        with pytest.raises(PwmError, match="of one of the tasks cheetah-run, arm"):
            client.act(obs)
        with pytest.raises(PwmError, match="takes observations of size 3"):
            client.act(obs, "arm")
        with pytest.raises(PwmError, match="NaN"):
            client.act(np.full(3, np.nan), "arm")


def test_policies_act_while_others_are_opened_in_their_place(policies, monkeypatch):
    opened, go_on = module.find_policies, threading.Event()
    answers = []

    def reload() -> None:
        with PolicyClient(server.address, timeout=0.1) as operator:
            answers.append(operator.reload()["tasks"])

    with running(policies) as server, PolicyClient(server.address) as client:
        monkeypatch.setattr(module, "find_policies", lambda path: go_on.wait(10) and opened(path))
        operators = [threading.Thread(target=reload) for _ in range(3)]
        for operator in operators:
            operator.start()
        for _ in range(20):
            assert client.act(np.ones(3), "arm").shape == (2,)
        assert not answers
        before = server._policies
        go_on.set()
        for operator in operators:
            operator.join(10)
        assert answers == [["cheetah-run", "arm"]] * 3
        assert server._policies is not before


def test_a_reload_that_is_under_way_ends_before_the_server_does(policies, monkeypatch):
    opened, stop = module.find_policies, threading.Event()
    with Server(ServeConfig(policy=str(policies), port=0)) as server:
        thread = threading.Thread(target=server.run, args=(stop.is_set,))
        thread.start()
        with PolicyClient(server.address) as client:
            slow = lambda path: stop.set() or time.sleep(0.2) or opened(path)  # noqa: E731
            monkeypatch.setattr(module, "find_policies", slow)
            assert client.reload()["tasks"] == ["cheetah-run", "arm"]
        thread.join(10)
        assert not thread.is_alive()


def test_a_damaged_policy_does_not_take_the_place_of_the_one_that_acts(policies):
    (tensors,) = (policies / "arm").glob("*.safetensors")
    with running(policies / "arm") as server, PolicyClient(server.address) as client:
        before = client.act(np.ones(3))
        tensors.write_bytes(b"damaged")
        with pytest.raises(PwmError, match="is damaged"):
            client.reload()
        server.reload_asked.set()
        np.testing.assert_array_equal(client.act(np.ones(3)), before)


@pytest.mark.parametrize(
    "question",
    [
        b"\xc1",
        msgspec.msgpack.encode({"kind": "delete"}),
        msgspec.msgpack.encode(Request("act")),
        msgspec.msgpack.encode(Request("act", obs=Array([2, 2], b"\0" * 12))),
        msgspec.msgpack.encode(Request("act", obs=Array([3], b"\0" * 11))),
        msgspec.msgpack.encode(Request("act", obs=Array([], b"\0" * 4))),
    ],
)
def test_a_malformed_question_gets_a_sentence_and_the_server_goes_on(policies, question):
    with running(policies / "arm") as server, PolicyClient(server.address) as client:
        client._socket.send(question)
        assert client._socket.poll(5000)
        assert msgspec.msgpack.decode(client._socket.recv(), type=Reply).error
        assert client.act(np.ones(3)).shape == (2,)


def test_no_server_and_a_port_in_use(policies):
    with Server(ServeConfig(policy=str(policies), port=0)) as server:
        port = int(server.address.rpartition(":")[2])
        with pytest.raises(PwmError, match="cannot listen at"):
            Server(ServeConfig(policy=str(policies), port=port))
    with (
        PolicyClient(server.address, timeout=0.05) as client,
        pytest.raises(PwmError, match=r"no answer from tcp.* within 0.05 s"),
    ):
        client.health()
    with pytest.raises(PwmError, match="no port"):
        serve(ServeConfig(policy=str(policies), port=70000))


def test_signals_reload_and_stop(policies, monkeypatch, capsys):
    seen = []
    handlers = {s: signal.getsignal(s) for s in (signal.SIGHUP, signal.SIGTERM)}

    def one_question(self, patience):
        if patience:  # and not after the signal to stop
            seen.append(self._policies)
            if len(seen) == 1:
                signal.raise_signal(signal.SIGHUP)
            elif self._policies is not seen[0]:
                signal.raise_signal(signal.SIGTERM)
        return False

    monkeypatch.setattr(module.Server, "_answer_one", one_question)
    with pytest.raises(Interrupted):
        serve(ServeConfig(policy=str(policies / "arm"), port=0))
    assert "opened anew" in capsys.readouterr().err
    assert {s: signal.getsignal(s) for s in handlers} == handlers
