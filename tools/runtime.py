"""Which TensorFlow runs the project, and its sessions: TensorFlow 1.x, or its API within TensorFlow 2.x.

`from ops import tf` is how the rest of the project gets it. What needs no TensorFlow leaves this module out.
"""
import contextlib
import ctypes
import functools
import os
import re
import sys

from tools import INSTALL
from tools import command
from tools.command import UserError, notice_once, quiet_stderr

GIVEN_GPUS = os.environ.get("CUDA_VISIBLE_DEVICES")  # by the user or a scheduler; None: all


def _keep_freed_memory():
    """Let glibc, which Eigen in TensorFlow 1.8 calls, keep what is freed: by default it goes back to the
    system after every operation, and half of the time on a CPU goes to page faults."""
    M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # of malloc.h
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt:
        mallopt(M_TRIM_THRESHOLD, 2 ** 31 - 1)
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_ARENA_MAX, 1)


if "tensorflow" not in sys.modules:  # which reads these when it is imported
    os.environ.setdefault("JEMALLOC_MALLOC_CONF", "lg_dirty_mult:-1")  # of TensorFlow 1.8
    # by default, TensorFlow 2 has them on AVX-512 CPUs alone
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    # errors come as exceptions; 0 shows all that the C++ runtime logs
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


class TensorFlow(object):
    """TensorFlow 1.x, or the part of 2.x that has its API: an object with the module's names. The first that
    is used imports it, so that --help and wrong options do not wait seconds for it."""

    def __getattr__(self, name):
        value = getattr(_import_tensorflow(), name)
        setattr(self, name, value)  # found without a call from now on
        return value


@contextlib.contextmanager
def _importing_alone():
    """Within this context, stderr is dropped, and TensorFlow finds no JAX and no matplotlib. It would import
    them, which takes a third of its time, to convert from the one and plot with the other."""
    hidden = [name for name in ("jax", "matplotlib") if name not in sys.modules]
    sys.modules.update((name, None) for name in hidden)
    try:
        with quiet_stderr():
            yield
    finally:
        for name in hidden:
            del sys.modules[name]


@functools.lru_cache(maxsize=1)
def _import_tensorflow():
    """TensorFlow; a command makes it TensorFlow 1 for all of its process, other people's programs do not."""
    try:
        with _importing_alone() if command.owns_process else contextlib.suppress():
            import tensorflow
    except ImportError as error:
        raise ImportError("%s: %s" % (str(error).strip().splitlines()[-1], INSTALL))
    version1 = getattr(getattr(tensorflow, "compat", None), "v1", None) or tensorflow
    if command.owns_process:
        version1.logging.set_verbosity(version1.logging.ERROR)
        if version1 is tensorflow:
            _keep_freed_memory()
        else:
            version1.disable_v2_behavior()
    return version1


tf = TensorFlow()


@functools.lru_cache(maxsize=1)
def _first_process():
    """The process that opened the first session."""
    return os.getpid()


def check_not_forked():
    """Raise UserError in a process that was forked from one that had a session: it would wait for ever for
    TensorFlow's threads, which are not there."""
    if _first_process() != os.getpid():
        raise UserError("this process was forked after TensorFlow had been used: load the model after the "
                        "fork, or start processes by spawn")


def open_session(gpus, target="", task="", **config):
    """A session on the GPUs with these indices, on the CPU if there is none (one line says so) or for [-1].

    target, task: of this process's tf.train.Server, whose cluster the session spans. config: further fields
    of tf.ConfigProto. Raises UserError as check_not_forked().
    """
    check_not_forked()
    if command.owns_process:
        _run_first_graph()
    session = tf.Session(target, config=session_config(gpus, **config))
    names = list_gpus(session, task)
    found = len(names if command.owns_process else set(names) & {"/gpu:%d" % gpu for gpu in gpus})
    if gpus[0] >= 0 and found < len(gpus):
        notice_once("GPU %s is not available to TensorFlow %s: running on %s" % (
            ",".join(map(str, gpus)), tf.__version__, "%d GPU" % found if found else "the CPU"))
        if names and not found:
            session.close()
            return open_session([-1])
    return session


@functools.lru_cache(maxsize=1)
def _run_first_graph():
    """Run a graph without its lines on stderr: TensorFlow 2.20 writes some for the first at any log level."""
    if not tf.__version__.startswith("1."):
        config = tf.ConfigProto(device_count={"GPU": 0})
        with quiet_stderr(), tf.Graph().as_default(), tf.Session(config=config) as session:
            session.run(tf.constant(0))


def list_gpus(session, task=""):
    """The names of the GPUs of a session, in a cluster of those of one task, as "/job:worker/task:1"."""
    wanted, names = tf.DeviceSpec.from_string(task), []
    for device in session.list_devices():
        spec = tf.DeviceSpec.from_string(device.name)
        if device.device_type == "GPU" and (not task or (spec.job, spec.task) == (wanted.job, wanted.task)):
            names.append("%s/gpu:%d" % (task, spec.device_index))
    return names


def session_config(gpus, **config):
    """The tf.ConfigProto of a session that takes the memory of GPUs as needed. A command's sees these GPUs
    alone, of those that a scheduler gave it; in other people's programs all sessions see the same GPUs, and
    none for [-1] (see graph_device)."""
    config = tf.ConfigProto(allow_soft_placement=True, **config)
    config.gpu_options.allow_growth = True
    if command.owns_process:
        names = None if GIVEN_GPUS is None else GIVEN_GPUS.replace(" ", "").split(",")  # indices or UUIDs
        chosen = [str(i) if names is None else names[i] for i in gpus if names is None or 0 <= i < len(names)]
        os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(filter(None, chosen)) or "-1"
    elif gpus == [-1]:
        config.device_count["GPU"] = 0
    return config


def graph_device(gpu):
    """The device of a graph that runs on the GPU of this index (-1: on the CPU) in a session_config()."""
    return "/gpu:%d" % gpu if gpu >= 0 and not command.owns_process else None


def gpu_memory(session):
    """Bytes of memory of the smallest GPU of a session, 0 without one."""
    return min([device.memory_limit_bytes for device in session.list_devices()
                if device.device_type == "GPU"] or [0])


def resident_memory():
    """Bytes of memory that this process takes; 2^29 where the system does not say."""
    try:
        return 1024 * int(_read_fields("/proc/self/status")["VmRSS:"])
    except OSError:
        return 2 ** 29


def free_memory():
    """Bytes of memory free on this machine or in its control group; 2^32 where the system does not say."""
    try:
        free = 1024 * int(_read_fields("/proc/meminfo")["MemAvailable:"])
    except OSError:
        return 2 ** 32
    for folder, limit, used, cache in (
            ("/sys/fs/cgroup/", "memory.max", "memory.current", "file"),
            ("/sys/fs/cgroup/memory/", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache")):
        with contextlib.suppress(OSError, ValueError):  # no such control group, or one without a limit
            limit, used = (int(open(folder + name).read()) for name in (limit, used))
            free = min(free, limit - used + int(_read_fields(folder + "memory.stat")[cache]))
    return free


def _read_fields(path):
    """{first word: second word} of the lines of a file."""
    with open(path) as file:
        return dict(line.split()[:2] for line in file if len(line.split()) > 1)


def why_no_bfloat16():
    """Why TensorFlow cannot convolve in bfloat16, and what to do, in words; None if it can."""
    if tf.__version__.startswith("1."):
        return "TensorFlow %s cannot convolve in bfloat16: leave out --precision, or use TensorFlow 2" % (
            tf.__version__)
    limit = _onednn_limit()  # of which TensorFlow does not know
    if os.environ.get("TF_ENABLE_ONEDNN_OPTS") != "0" and limit:
        return ("oneDNN cannot convolve in bfloat16 with ONEDNN_MAX_CPU_ISA=%s: leave out --precision, or "
                "unset that variable" % limit)
    return None


def _onednn_limit():
    """What ONEDNN_MAX_CPU_ISA limits oneDNN to, if that is below AVX-512; or None."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "")
    return limit if re.match("(SSE41|AVX2?(_VNNI)?)$", limit, re.I) else None


def cpu_info():
    """What Linux says of the processors, a text; "" on other systems."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        return file.read()
    return ""


def cpu_has_bfloat16():
    """Whether the processor has instructions for bfloat16; True where the system does not say."""
    return "bf16" in (cpu_info() or "bf16")


def ends_at_avx2():
    """Whether oneDNN has AVX2 here, and no AVX-512: it then takes longer for a convolution than XLA."""
    info = cpu_info()
    return bool(_onednn_limit()) or ("avx2" in info and "avx512" not in info)


def check_precision(precision, on_cpu=False):
    """Raise UserError if TensorFlow cannot convolve in a precision (see compute.py). One line says so if the
    processor, on which it is to run, has no instructions for it."""
    if precision == "bfloat16" and why_no_bfloat16():
        raise UserError(why_no_bfloat16())
    if precision == "bfloat16" and on_cpu and not cpu_has_bfloat16():
        notice_once("this processor has no instructions for bfloat16: it takes many times as long as float32")


def error_reason(error):
    """The line of an error that says what went wrong; TensorFlow 2 writes lines before it that say where."""
    lines = str(error).splitlines() or [type(error).__name__]
    return next((line for line, following in zip(lines, lines[1:]) if following.startswith("\t [[")),
                lines[0])
