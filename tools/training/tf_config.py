"""Print the TF_CONFIG of a task of a scheduler: export TF_CONFIG=$(python tools/training/tf_config.py)

Under Slurm, hosts and the number of this one come from the variables of `srun`, with one task a node.
Elsewhere --hosts names the hosts, and --index, or JOB_COMPLETION_INDEX of a Kubernetes job, says which of
them this is. The first is the chief, the last are the parameter servers, and workers are between them.
"""
import argparse
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
from tools.command import UserError, not_negative, positive, run_main


def slurm_place(environ):
    """(hosts, the index of this one, a port of this job's own) from Slurm's variables. Raises UserError."""
    try:
        nodes, tasks = environ["SLURM_STEP_NODELIST"], int(environ["SLURM_STEP_NUM_TASKS"])
        index, job = int(environ["SLURM_NODEID"]), int(environ["SLURM_JOB_ID"])
        hosts = subprocess.check_output(["scontrol", "show", "hostnames", nodes]).decode().split()
    except (KeyError, ValueError) as error:
        raise UserError("no task of Slurm: %s is not as srun sets it: start this by srun, or give --hosts "
                        "and --index" % error)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError("scontrol cannot say which hosts %s are: %s" % (nodes, error))
    if tasks != len(hosts):
        raise UserError("%d tasks on %d nodes: give srun --ntasks-per-node=1" % (tasks, len(hosts)))
    return hosts, index, 20000 + job % 10000


def make_config(hosts, index, port, servers):
    """TF_CONFIG of the host with this index, as a dict; the last `servers` hosts are parameter servers.
    Raises UserError."""
    if not 0 <= index < len(hosts) or servers >= len(hosts):
        raise UserError("host %d of %d, with %d parameter servers, is none: the first host, number 0, is the "
                        "chief" % (index, len(hosts), servers))
    roles = ["chief"] + ["worker"] * (len(hosts) - 1 - servers) + ["ps"] * servers
    cluster = {}
    for host, role in zip(hosts, roles):
        cluster.setdefault(role, []).append("%s:%d" % (host, port))
    return {"cluster": cluster, "task": {"type": roles[index], "index": roles[:index].count(roles[index])}}


def main(argv=None):
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--ps", type=not_negative(int), default=0, help="how many parameter servers (default 0: the chief)")
    add("--hosts", nargs="+", metavar="HOST", help="default: those of the Slurm job")
    add("--index", type=int, default=os.environ.get("JOB_COMPLETION_INDEX"), help="of this host, from 0")
    add("--port", type=positive(int), help="default 4000, under Slurm by the number of the job")
    args = parser.parse_args(argv)
    if args.hosts and args.index is None:
        parser.error("--hosts needs --index")
    hosts, index, port = (args.hosts, args.index, 4000) if args.hosts else slurm_place(os.environ)
    print(json.dumps(make_config(hosts, index, args.port or port, args.ps)))


if __name__ == "__main__":
    run_main(main)
