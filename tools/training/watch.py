"""Tasks of a cluster watch each other, and hear signals, while TensorFlow waits: it does so in C++, where Python's handlers of
signals do not get a turn."""
import contextlib
import os
import signal
import socket
import sys
import threading
import time

from tools.training.history import say

SIGNALS = signal.SIGINT, signal.SIGTERM
GRACE = 7  # seconds in which a chief that gets a signal at the same time can end its step and save


def answers(address, seconds=1):
    """Whether anything listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), seconds).close()
        return True
    except OSError:
        return False


def wait_for(addresses):
    """Return as soon as something listens at each HOST:PORT. TensorFlow's own wait, for the devices of a cluster, keeps the lock of
    the interpreter, so that no thread would hear a signal."""
    while not all(map(answers, addresses)):
        time.sleep(0.2)


def end(status, message):
    """End this process at once, whatever its threads wait for. What it was writing is not renamed to its name, as with kill -9."""
    print(message, file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(status)


@contextlib.contextmanager
def watching(check, handler, seconds=1):
    """Within this context check(received) is called every `seconds`, and as soon as a signal comes, in a thread of its own.

    received: the SIGINT and SIGTERM that have come so far, a list of their numbers. handler: of both.
    """
    handlers = {number: signal.signal(number, handler) for number in SIGNALS}
    reader, writer = socket.socketpair()
    reader.settimeout(seconds)
    writer.setblocking(False)
    before, left, received = signal.set_wakeup_fd(writer.fileno()), threading.Event(), []

    def work():
        while not left.is_set():
            check(received)
            with contextlib.suppress(socket.timeout):
                received.extend(number for number in reader.recv(16) if number in SIGNALS)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()
        signal.set_wakeup_fd(before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        writer.send(b"\0")  # ends the wait of recv()
        thread.join()
        reader.close()
        writer.close()


@contextlib.contextmanager
def watching_chief(address, minutes):
    """Within this context a signal ends this process, with exit status 130 or 143, once the chief has ended or GRACE is over; and
    so does, with 1, a chief that has not listened at its address for so many minutes."""
    seen, asked = time.time(), None

    def check(received):
        nonlocal seen, asked
        found = answers(address)
        if received:
            asked = asked or time.time()
            if not found or time.time() - asked > GRACE:
                end(128 + received[0], "stopped")
        if found:
            seen = time.time()
        elif time.time() - seen > 60 * minutes:
            end(1, "error: no chief at %s for %g minutes: start it, and then this task again" % (address, minutes))

    with watching(check, lambda *_: None):
        yield


@contextlib.contextmanager
def watching_tasks(addresses, handler):
    """Within this context it is said when a task of {name: HOST:PORT} is waited for, and a signal that comes meanwhile ends this
    process, with exit status 130 or 143. While all tasks are there, signals are left to the handler. {}: nothing is watched."""
    if not addresses:
        yield
        return
    waited = None

    def check(received):
        nonlocal waited
        lost = next((name for name, address in addresses.items() if not answers(address)), None)
        if lost and received:
            end(128 + received[0], "stopped while %s was waited for; the same command resumes from the last state" % lost)
        if lost and lost != waited:
            say("waiting for %s at %s" % (lost, addresses[lost]))
        waited = lost

    with watching(check, handler):
        yield
