"""train_tiny.py in processes that are forked from a server that has imported TensorFlow, which takes seconds.
As a script, this file is the server: it prints an answer to each line of stdin, both JSON."""
import functools
import json
import os
import signal
import subprocess
import sys


@functools.lru_cache(maxsize=None)
def server():
    return subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def ask(**request):
    server().stdin.write(json.dumps(request).encode() + b"\n")
    server().stdin.flush()
    return json.loads(server().stdout.readline().decode())


class Forked(object):
    """train_tiny.py with these arguments and additions to the environment, with what tests use of Popen.
    output: the name of a pipe that is made."""

    def __init__(self, arguments, environment, output):
        os.mkfifo(output)
        self.pid, self.returncode = ask(arguments=arguments, environment=environment, output=output), None
        self.stdout = open(output, "rb")

    def poll(self, flags=os.WNOHANG):
        if self.returncode is None:
            self.returncode = ask(pid=self.pid, flags=flags)
        return self.returncode

    def wait(self):
        return self.poll(0)

    def communicate(self):
        return self.stdout.read(), self.wait()

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def run_in_fork(arguments, environment, output):
    """What a fork does."""
    for stream, file in enumerate([os.open(os.devnull, os.O_RDONLY)] + 2 * [os.open(output, os.O_WRONLY)]):
        os.dup2(file, stream)
    sys.stderr = sys.__stderr__ = open(2, "w", buffering=1)  # the old one may be of a file, which can seek
    os.environ.update(environment)
    sys.argv = ["train.py"] + arguments
    train_tiny.main()


def wait(pid, flags):
    """The exit status of a fork, of a killed one less than 0; None while it runs."""
    found, status = os.waitpid(pid, flags)
    return (os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)) if found else None


if __name__ == "__main__":
    import train_tiny
    for line in sys.stdin:
        request = json.loads(line)
        answer = wait(**request) if "pid" in request else os.fork() or run_in_fork(**request)
        print(json.dumps(answer), flush=True)
