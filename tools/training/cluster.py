"""What computes a batch together: threads of a CPU, GPUs of a machine, or the machines of a cluster by
TF_CONFIG.

A thread hears signals and watches other tasks: while TensorFlow waits in C++, Python's handlers get no turn.
"""
import collections
import contextlib
import functools
import json
import os
import signal
import socket
import sys
import threading
import time

from ops import tf
from tools.command import UserError, say
from tools.compute import can_compile
from tools.runtime import error_reason, list_gpus, open_session, session_config

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
GRACE = 20  # seconds in which a chief that gets a signal at the same time can end a validation and save
TF_CONFIG_FORM = (
    '{"cluster": {"chief": [HOST:PORT], "worker": [HOST:PORT, ...], "ps": [HOST:PORT, ...]}, '
    '"task": {"type": "worker", "index": 0}}')

Cluster = collections.namedtuple("Cluster", "addresses type index")  # addresses: {type: [HOST:PORT, ...]}


def read_cluster():
    """The Cluster that the environment variable TF_CONFIG describes, and this process's task in it.

    None without it, and where no other task is in it, as platforms set it for one machine. Without a chief,
    the first worker is the chief, as in TensorFlow. Raises UserError.
    """
    text = os.environ.get("TF_CONFIG")
    try:
        config = json.loads(text or "null") or {}
        jobs = config.get("cluster", {}).items()
        addresses = {job.replace("master", "chief"): own for job, own in jobs}
        tasks = sum(addresses.values(), [])
        if len(tasks) < 2:
            return None
        job, index = config["task"]["type"].replace("master", "chief"), int(config["task"]["index"])
        if not addresses.get("chief"):
            addresses["chief"] = [addresses["worker"].pop(0)]
            if job == "worker":
                job, index = (job, index - 1) if index else ("chief", 0)
        if not all(":" in address for address in tasks) or index not in range(len(addresses[job])):
            raise ValueError
        return Cluster({name: own for name, own in addresses.items() if own}, job, index)
    except (KeyError, ValueError, TypeError, AttributeError):
        raise UserError("TF_CONFIG is not the JSON of a cluster and of a task in it, but %.80s: expected %s"
                        % (text, TF_CONFIG_FORM))


def other_tasks(cluster):
    """{name: HOST:PORT} of the tasks that the chief needs, {} without a cluster."""
    addresses = cluster.addresses if cluster else {}
    return collections.OrderedDict(("/job:%s/task:%d" % (job, i), address) for job in ("worker", "ps")
                                   for i, address in enumerate(addresses.get(job, [])))


def answers(address):
    """Whether anything listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError):
        socket.create_connection((host.strip("[]"), int(port)), 1).close()
        return True
    return False


def end(status, message):
    """End this process at once, whatever its threads wait for: what is not written yet is not, as with kill
    -9."""
    try:
        print(message, file=sys.stderr if status == 1 else sys.stdout, flush=True)
    finally:
        os._exit(status)


@contextlib.contextmanager
def watching(check):
    """Within this context check(number) is called in a thread, every second and at once when a signal comes.

    number: of the first of SIGNALS that came, None before. SIGHUP stays ignored if it is, as by nohup.
    """
    heard = [number for number in SIGNALS
             if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN]
    handlers = {number: signal.signal(number, lambda *_: None) for number in heard}
    reader, writer = socket.socketpair()
    reader.settimeout(1)
    writer.setblocking(False)
    before, left = signal.set_wakeup_fd(writer.fileno()), threading.Event()

    def work():
        came = []
        while not left.is_set():
            check(came[0] if came else None)
            with contextlib.suppress(socket.timeout):
                came += [number for number in reader.recv(16) if number in heard]

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


class Watch(object):
    """What a training does about signals and about tasks, {name: HOST:PORT}, that are lost; check: for
    watching().

    Once it has `begun` a signal sets `signal`, and it stops after its step. Before, and while a task is
    waited for, there is nothing to save, and the process ends.
    """

    def __init__(self, tasks):
        self.tasks, self.begun, self.signal, self.lost = tasks, False, 0, None

    def check(self, number):
        lost = next((name for name, address in self.tasks.items() if not answers(address)), None)
        if number and (lost or not self.begun):
            end(128 + number, "stopped" if not lost else
                "stopped while %s was waited for; the same command resumes from the last state" % lost)
        if lost and lost != self.lost:
            say("waiting for %s at %s" % (lost, self.tasks[lost]))
        self.lost, self.signal = lost, number or 0


def watch_chief(address, minutes):
    """The check for watching() of another task: a signal ends it, once the chief has ended or GRACE is over,
    and so does a chief that has not listened at its address for so many minutes."""
    seen, asked = time.time(), None

    def check(number):
        nonlocal seen, asked
        now, found = time.time(), answers(address)
        seen, asked = now if found else seen, asked or (now if number else None)
        if number and (not found or now - asked > GRACE):
            end(128 + number, "stopped")
        if now - seen > 60 * minutes:
            end(1, "error: no chief at %s for %g minutes: start it, and then this task again"
                % (address, minutes))
    return check


def start_server(cluster, gpus, **config):
    """This process's tf.train.Server. Raises UserError if its address cannot be used."""
    address = cluster.addresses[cluster.type][cluster.index]
    config = session_config(gpus, **config)
    try:
        return tf.train.Server(cluster.addresses, cluster.type, cluster.index, config=config)
    except tf.errors.OpError as error:
        taken = answers("localhost:" + address.rpartition(":")[2])
        raise UserError("cannot serve at %s of TF_CONFIG: %s" % (
            address, "another process listens at this port: end it, or give another port"
            if taken else error_reason(error)))


def task_done(task):
    """A queue of one task, which the chief fills when training has ended: with True, or False if it
    failed."""
    with tf.device(task + "/cpu:0"):
        return tf.FIFOQueue(1, tf.bool, [()], shared_name="done")


def serve(cluster, gpus, chief_timeout):
    """Be a worker or a parameter server, and compute what the chief asks for until it says that training is
    done.

    chief_timeout: in minutes, as of watch_chief(). Raises UserError if the chief says that it failed.
    """
    task = "/job:%s/task:%d" % (cluster.type, cluster.index)
    tf.train.ClusterSpec(cluster.addresses)  # imports TensorFlow, which hides stderr meanwhile
    with watching(watch_chief(cluster.addresses["chief"][0], chief_timeout)):
        server = start_server(cluster, gpus)
        say("serving as %s at %s" % (task[1:], cluster.addresses[cluster.type][cluster.index]))
        with tf.Session(server.target, config=tf.ConfigProto(device_filters=[task])) as session:
            done = session.run(task_done(task).dequeue())
    if not done:
        raise UserError("the chief failed: it says why")


def split_batch(gpus, parts):
    """The names of what computes a part of the batch each: the GPUs of every task, or without any as many
    threads of each as there are parts.

    gpus: {task: names of its own GPUs}. A task with one GPU or none, where others have some, computes one
    part.
    """
    if not any(gpus.values()):
        return [task for task in gpus for _ in range(parts)]
    return [name for task, own in gpus.items() for name in (own if len(own) > 1 else [task])]


class Devices(object):
    """What shares a batch, in equal parts: GPUs, or threads of the CPU; in a cluster, those of chief and
    workers.

    One part of the batch a thread takes a quarter less time than operations that are themselves split over
    threads, and gives the same sums in every run.
    """

    def __init__(self, gpus, threads, batch, cluster=None):
        self.others, tasks = other_tasks(cluster), [""]
        if cluster:
            tasks = ["/job:chief/task:0"] + [task for task in self.others if task.startswith("/job:worker/")]
        self.chief = tasks[0]
        check_batch(batch, len(tasks), "machines")
        parts = max(n for n in range(1, threads + 1) if batch % (n * len(tasks)) == 0)
        config = dict(intra_op_parallelism_threads=threads // parts, inter_op_parallelism_threads=threads)
        self.server = start_server(cluster, gpus, **config) if cluster else None
        target = self.server.target if cluster else ""
        self.open_session = functools.partial(open_session, gpus, target, self.chief, **config)
        with self.connect() as session:
            found = collections.OrderedDict((task, list_gpus(session, task)) for task in tasks)
        self.on_cpu = not any(found.values())
        self.compiled = self.on_cpu and not cluster and can_compile()  # see convolving_in
        self.names = split_batch(found, parts)
        check_batch(batch, len(self.names), "devices")
        if cluster:
            job = "ps" if cluster.addresses.get("ps") else "chief"
            self.names = [tf.train.replica_device_setter(
                len(cluster.addresses[job]), "/job:" + job, name, ps_ops=["VariableV2", "Variable"])
                for name in self.names]

    def connect(self):
        """A session, in a cluster as soon as all tasks are there: TensorFlow's own wait would keep the
        interpreter's lock, so that no thread could hear a signal."""
        while not all(map(answers, self.others.values())):
            time.sleep(0.2)
        return self.open_session()

    def tell(self, done):
        """Tell every other task of the cluster that is there that training is done, or that it failed."""
        for task in [task for task, address in self.others.items() if answers(address)]:
            config = tf.ConfigProto(device_filters=[self.chief, task])
            with contextlib.suppress(tf.errors.OpError), tf.Graph().as_default():
                with tf.Session(self.server.target, config=config) as session:
                    session.run(task_done(task).enqueue(done))


def check_batch(batch, parts, words):
    """Raise UserError if a batch cannot be split into so many equal parts."""
    if batch % parts:
        sizes = [size for size in (batch // parts * parts, (batch // parts + 1) * parts) if size]
        raise UserError("a batch of %d cannot be split over %d %s: give --batch %s" % (
            batch, parts, words, " or ".join(map(str, sizes))))
