"""What computes a batch together: the threads of a CPU, the GPUs of a machine, or the machines of a cluster by TF_CONFIG."""
import collections
import functools
import json
import os

from ops import tf
from tools.runtime import error_reason, open_session, session_config
from utils import UserError

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
    """A queue of one task of the cluster, which the chief fills when training is done."""
    with tf.device(task + "/cpu:0"):
        return tf.FIFOQueue(1, tf.bool, [()], shared_name="done")


def serve(cluster, gpus):
    """Be a worker or a parameter server: compute what the chief asks for until it says that training is done."""
    task = "/job:%s/task:%d" % (cluster.type, cluster.index)
    server = start_server(cluster, gpus)
    print("serving as %s at %s" % (task[1:], cluster.addresses[cluster.type][cluster.index]), flush=True)
    with tf.Session(server.target, config=tf.ConfigProto(device_filters=[task])) as session:
        session.run(task_done(task).dequeue())


class Devices(object):
    """What shares a batch, in equal parts: the GPUs, or the threads of the CPU; in a cluster, those of chief and workers.

    One part of the batch a thread takes a quarter less time than operations that are themselves split over threads, and
    gives the same sums in every run.
    """

    def __init__(self, gpus, threads, batch, cluster=None):
        tasks, self.others = [""], []
        if cluster:
            names = {job: ["/job:%s/task:%d" % (job, i) for i in range(len(addresses))]
                     for job, addresses in cluster.addresses.items()}
            tasks = names["chief"] + names.get("worker", [])
            self.others = names.get("worker", []) + names.get("ps", [])
        if batch % len(tasks):
            below = batch // len(tasks) * len(tasks)
            raise UserError("a batch of %d cannot be split over %d machines: give --batch %s" % (batch, len(tasks), " or ".join(
                str(size) for size in (below, below + len(tasks)) if size)))
        parts = max(n for n in range(1, threads + 1) if batch % (n * len(tasks)) == 0)
        config = dict(intra_op_parallelism_threads=threads // parts, inter_op_parallelism_threads=threads)
        self.server = start_server(cluster, gpus, **config) if cluster else None
        self.connect = functools.partial(open_session, gpus, self.server.target if cluster else "", **config)
        with self.connect() as session:  # in a cluster, as soon as all tasks are there
            gpus = sum(device.device_type == "GPU" for device in session.list_devices()) // len(tasks)
        self.on_cpu = not gpus
        local = ["/gpu:%d" % i for i in range(gpus)] if gpus > 1 else [""] * (1 if gpus else parts)
        self.names = [task + name for task in tasks for name in local]
        if batch % len(self.names):
            raise UserError("a batch of %d cannot be split over %d devices: change --batch" % (batch, len(self.names)))
        self.chief = tasks[0]
        if cluster:
            stores = names.get("ps") or names["chief"]
            self.names = [tf.train.replica_device_setter(
                len(stores), stores[0].rpartition("/task")[0], name, ps_ops=["VariableV2", "Variable"]) for name in self.names]

    def tell_done(self):
        """The operations that tell the other tasks of a cluster that training is done, [] without a cluster."""
        return [task_done(task).enqueue(True) for task in self.others]


def parse_gpus(text):
    """The type of an option that takes indices of GPUs, as "0,1"."""
    return [int(index) for index in text.split(",")]


def cpu_has_bfloat16():
    """Whether the processor has instructions for bfloat16; True where the system does not say."""
    try:
        with open("/proc/cpuinfo") as file:
            return "bf16" in file.read()
    except OSError:
        return True
