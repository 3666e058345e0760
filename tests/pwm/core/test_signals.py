from __future__ import annotations

import signal
import threading

import pytest

from pwm.core.signals import Interrupted, StopSignals, Terminated, sigterm_unwinds

BOTH = (signal.SIGINT, signal.SIGTERM)


@pytest.mark.parametrize("signum", BOTH)
def test_a_signal_is_noted_and_raised_when_the_loop_asks(signum):
    with StopSignals() as signals:
        signals.raise_if_requested("nothing yet")
        signal.raise_signal(signum)
        assert signals.requested == signum
        with pytest.raises(Interrupted, match="saved at step 3") as caught:
            signals.raise_if_requested("saved at step 3")
    assert caught.value.signum == signum


def test_handlers_are_given_back_however_it_ends():
    before = [signal.getsignal(s) for s in BOTH]
    with StopSignals():
        assert [signal.getsignal(s) for s in BOTH] != before
    assert [signal.getsignal(s) for s in BOTH] == before
    with pytest.raises(KeyError), StopSignals():
        raise KeyError
    assert [signal.getsignal(s) for s in BOTH] == before


@pytest.mark.usefixtures("keyboard_interrupts")
def test_a_second_signal_is_not_held_back():
    with StopSignals() as signals:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert signals.requested == signal.SIGINT


def test_outside_the_main_thread_it_does_nothing():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work() -> None:
        with sigterm_unwinds(), StopSignals() as signals:
            seen.append((signal.getsignal(signal.SIGINT), signals.requested))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(before, None)]


def test_sigterm_unwinds_inside_and_not_after():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated), sigterm_unwinds():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_second_sigterm_unwinds_a_loop_that_noted_the_first():
    with sigterm_unwinds(), StopSignals() as signals:
        signal.raise_signal(signal.SIGTERM)
        assert signals.requested == signal.SIGTERM
        with pytest.raises(Terminated):
            signal.raise_signal(signal.SIGTERM)
