"""What computes a batch together: the threads of a CPU, the GPUs of a machine, or the machines of a cluster by TF_CONFIG."""
import collections
import contextlib
import functools
import json
import os
import threading
import time

from ops import tf
from tools.command import UserError
from tools.runtime import error_reason, list_gpus, open_session, session_config
from tools.training.watch import wait_for, watching_chief
from tools.compute import can_compile

Cluster = collections.namedtuple("Cluster", "addresses type index")  # addresses: {type: [host:port, ...]}


def read_cluster():
    """The Cluster that the environment variable TF_CONFIG describes, and this process's task in it; None without it."""
    text = os.environ.get("TF_CONFIG")
    if not text:
        return None
    try:
        config = json.loads(text)
        cluster = Cluster(config["cluster"], config["task"]["type"], int(config["task"]["index"]))
        cluster.addresses[cluster.type][cluster.index]
        cluster.addresses["chief"][0]
        tf.train.ClusterSpec(cluster.addresses)  # also imports TensorFlow, which hides stderr, before a signal has to be told there
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError("TF_CONFIG lacks %s: expected {\"cluster\": {\"chief\": [HOST:PORT], \"worker\": [HOST:PORT, ...], "
                        "\"ps\": [HOST:PORT, ...]}, \"task\": {\"type\": \"worker\", \"index\": 0}}" % error)
    return cluster


def start_server(cluster, gpus, **config):
    """This process's tf.train.Server. Raises UserError if its address cannot be used."""
    try:
        return tf.train.Server(cluster.addresses, cluster.type, cluster.index, config=session_config(gpus, **config))
    except tf.errors.OpError as error:
        raise UserError("cannot serve at %s of TF_CONFIG: %s" % (
            cluster.addresses[cluster.type][cluster.index], error_reason(error)))


def task_done(task):
    """A queue of one task of the cluster, which the chief fills when training has ended: with True, or False if it failed."""
    with tf.device(task + "/cpu:0"):
        return tf.FIFOQueue(1, tf.bool, [()], shared_name="done")


def serve(cluster, gpus, chief_timeout):
    """Be a worker or a parameter server: compute what the chief asks for until it says that training is done.

    Raises UserError if the chief says that it failed, and ends the process after a signal, or if there is no chief for
    `chief_timeout` minutes.
    """
    task = "/job:%s/task:%d" % (cluster.type, cluster.index)
    with watching_chief(cluster.addresses["chief"][0], chief_timeout):
        server = start_server(cluster, gpus)
        print("serving as %s at %s" % (task[1:], cluster.addresses[cluster.type][cluster.index]), flush=True)
        with tf.Session(server.target, config=tf.ConfigProto(device_filters=[task])) as session:
            done = session.run(task_done(task).dequeue())
    if not done:
        raise UserError("the chief failed: it says why")


def other_tasks(cluster):
    """{name: HOST:PORT} of the tasks that the chief needs, {} without a cluster."""
    addresses = cluster.addresses if cluster else {}
    return collections.OrderedDict(("/job:%s/task:%d" % (job, i), address) for job in ("worker", "ps")
                                   for i, address in enumerate(addresses.get(job, [])))


def split_batch(gpus, parts):
    """The names of what computes a part of the batch each: the GPUs of every task, or without any as many threads of each as
    there are parts.

    gpus: {task: names of its own GPUs}. A task with one GPU or none, where others have some, computes one part.
    """
    if not any(gpus.values()):
        return [task for task in gpus for _ in range(parts)]
    return [name for task, own in gpus.items() for name in (own if len(own) > 1 else [task])]


class Devices(object):
    """What shares a batch, in equal parts: the GPUs, or the threads of the CPU; in a cluster, those of chief and workers.

    One part of the batch a thread takes a quarter less time than operations that are themselves split over threads, and
    gives the same sums in every run.
    """

    def __init__(self, gpus, threads, batch, cluster=None):
        self.others = other_tasks(cluster)
        tasks = ["/job:chief/task:0"] + [task for task in self.others if task.startswith("/job:worker/")] if cluster else [""]
        self.chief = tasks[0]
        if batch % len(tasks):
            below = batch // len(tasks) * len(tasks)
            raise UserError("a batch of %d cannot be split over %d machines: give --batch %s" % (batch, len(tasks), " or ".join(
                str(size) for size in (below, below + len(tasks)) if size)))
        parts = max(n for n in range(1, threads + 1) if batch % (n * len(tasks)) == 0)
        config = dict(intra_op_parallelism_threads=threads // parts, inter_op_parallelism_threads=threads)
        self.server = start_server(cluster, gpus, **config) if cluster else None
        self.open_session = functools.partial(open_session, gpus, self.server.target if cluster else "", self.chief, **config)
        with self.connect() as session:
            found = collections.OrderedDict((task, list_gpus(session, task)) for task in tasks)
        self.on_cpu = not any(found.values())
        self.compiled = self.on_cpu and not cluster and can_compile()  # see convolving_in
        self.names = split_batch(found, parts)
        if batch % len(self.names):
            raise UserError("a batch of %d cannot be split over %d devices: change --batch" % (batch, len(self.names)))
        if cluster:
            job = "ps" if cluster.addresses.get("ps") else "chief"
            self.names = [tf.train.replica_device_setter(len(cluster.addresses[job]), "/job:" + job, name,
                                                         ps_ops=["VariableV2", "Variable"]) for name in self.names]

    def connect(self):
        """A session, in a cluster as soon as all tasks are there."""
        wait_for(self.others.values())
        return self.open_session()

    def tell(self, done, seconds=10):
        """Tell every other task of the cluster that training is done, or that it failed; those that are lost are not told."""
        def tell_task(task):
            config = tf.ConfigProto(device_filters=[self.chief, task])
            with contextlib.suppress(tf.errors.OpError), tf.Graph().as_default():
                with tf.Session(self.server.target, config=config) as session:
                    session.run(task_done(task).enqueue(done))

        threads = [threading.Thread(target=tell_task, args=[task], daemon=True) for task in self.others]
        for thread in threads:
            thread.start()
        deadline = time.time() + seconds
        for thread in threads:
            thread.join(max(0, deadline - time.time()))

    @contextlib.contextmanager
    def telling_failure(self):
        """An error within this context is told to the other tasks of the cluster, which then end, too."""
        try:
            yield
        except Exception:
            self.tell(False)
            raise
