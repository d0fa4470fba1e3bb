"""``xpnet``, in which one rank fails as the variable FAULT says: "KIND RANK".

The variable CORES has the cores that each rank may seem to run on: "0,1 2,3".
"""

import os
import signal
import sys
import time

from training.command import program
from training.distributed.launch import launched
from training.loop import provenance
from training.models.network import Network

STEP = 30


def fail_in_a_step(fail):
    """Let the 30th step, which follows the first checkpoints, fail."""
    whole, steps = Network.step_gradients, []

    def step_gradients(self, *arguments):
        steps.append(1)
        if len(steps) == STEP:
            fail()
        return whole(self, *arguments)

    Network.step_gradients = step_gradients


def raise_(error):
    raise error


def sleep_in_a_step(*arguments):
    time.sleep(1000)


def arrange(kind):
    if kind == "raise":
        fail_in_a_step(lambda: raise_(RuntimeError("a bug of this rank")))
    elif kind == "memory":
        fail_in_a_step(lambda: raise_(MemoryError("no 8 GB are left")))
    elif kind == "kill":
        fail_in_a_step(lambda: os.kill(os.getpid(), signal.SIGKILL))
    elif kind == "hang":
        Network.step_gradients = sleep_in_a_step
    elif kind == "version":
        provenance.own_version = lambda: "0.0.7"
    elif kind == "arguments":
        sys.argv += ["--lr", "0.5"]
    elif kind == "data":
        sys.argv += ["--data", os.environ["OTHER_DATA"]]
    elif kind == "option":
        sys.argv += ["--lr", "fast"]
    elif kind == "gpus":
        import backend

        report = backend.inspect_cuda()
        backend.inspect_cuda = lambda: type("Report", (), {**vars(report), "gpus": (object(),), "usable": False})()


if __name__ == "__main__":
    sys.argv[0] = "xpnet"
    kind, _, rank = os.environ.get("FAULT", "").partition(" ")
    place = launched()
    if "CORES" in os.environ and place is not None:
        cores = set(map(int, os.environ["CORES"].split()[place.rank].split(",")))
        os.sched_getaffinity = lambda process: cores
    if kind and place is not None and str(place.rank) == rank:
        arrange(kind)
    program()
