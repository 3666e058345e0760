from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest

from pwm.core.signals import Interrupted, StopSignals, Terminated, signals_unwind

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_signal_is_noted_and_raised_when_the_loop_asks(signum):
    with StopSignals() as signals:
        signals.raise_if_requested("nothing yet")
        signal.raise_signal(signum)
        assert signals.requested == signum
        with pytest.raises(Interrupted, match="saved at step 3") as caught:
            signals.raise_if_requested("saved at step 3")
    assert caught.value.signum == signum


def test_handlers_are_given_back_however_it_ends():
    before = [signal.getsignal(s) for s in SIGNALS]
    with StopSignals():
        assert [signal.getsignal(s) for s in SIGNALS] != before
    assert [signal.getsignal(s) for s in SIGNALS] == before
    with pytest.raises(KeyError), StopSignals():
        raise KeyError
    assert [signal.getsignal(s) for s in SIGNALS] == before


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
        with signals_unwind(), StopSignals() as signals:
            seen.append((signal.getsignal(signal.SIGINT), signals.requested))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(before, None)]


@pytest.mark.parametrize("signum", SIGNALS[1:])
def test_other_signals_unwind_inside_and_not_after(signum):
    before = signal.getsignal(signum)
    with pytest.raises(Terminated) as caught, signals_unwind():
        signal.raise_signal(signum)
    assert caught.value.signum == signum
    assert signal.getsignal(signum) == before


def test_a_scheduler_signal_that_another_library_handles_is_left_to_it():
    """As of submitit, which has its job begun anew."""
    seen = []
    before = signal.signal(signal.SIGUSR2, lambda signum, frame: seen.append(signum))
    try:
        with signals_unwind(), StopSignals() as signals:
            signal.raise_signal(signal.SIGUSR2)
            assert (seen, signals.requested) == ([signal.SIGUSR2], None)
            signal.raise_signal(signal.SIGUSR1)
            assert signals.requested == signal.SIGUSR1
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_a_second_signals_unwind_a_loop_that_noted_the_first():
    with signals_unwind(), StopSignals() as signals:
        signal.raise_signal(signal.SIGTERM)
        assert signals.requested == signal.SIGTERM
        with pytest.raises(Terminated):
            signal.raise_signal(signal.SIGTERM)


def test_the_first_worker_of_a_process_begins_with_all_of_them_blocked():
    """Python's resource tracker, which starts with it, unblocks two."""
    program = (
        "import signal\nfrom multiprocessing import resource_tracker\n"
        "from pwm.core.processes import fresh_interpreters\nfrom pwm.core.signals import STOPPING\n"
        "with fresh_interpreters():\n"
        "    resource_tracker.getfd()\n"
        "    print({*STOPPING} <= signal.pthread_sigmask(signal.SIG_BLOCK, ()))\n"
        "print(bool({*STOPPING} & signal.pthread_sigmask(signal.SIG_BLOCK, ())))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.stdout.split(), done.stderr) == (["True", "False"], "")
