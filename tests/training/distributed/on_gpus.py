"""Train on the GPUs of several ranks: by graphs, without, and without NCCL. Rank 0 prints what came out."""

import json
import logging

import backend
from tests.training.distributed.program import outcome, trainer
from training.distributed.communicator import Ranks

NAMES = ("plain", "normalized", "synchronized", "compressed")


def trained(ranks, name, graph=True, **more):
    run = trainer(ranks, name, **more)
    if not graph:
        run._graphs = None
    run.train(quiet=True)
    graphs = run._graphs
    return {**outcome(run), "graphs": 0 if graphs is None else len(graphs.shapes), "refusal": graphs and graphs.refusal}


def without_nccl(ranks):
    """Return what comes out, and what is said, where the second rank has no NCCL."""
    from cupy.cuda import nccl

    said = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logging.getLogger("xpnet").addHandler(handler)
    nccl.available = ranks.rank == 0
    return {name: trained(ranks, name) for name in NAMES}, said


def main():
    ranks = Ranks.join()
    backend.use(f"cuda:{ranks.local_rank if len(backend.inspect_cuda().gpus) > 1 else 0}")
    found = {name: [trained(ranks, name, graph) for graph in (True, False)] for name in NAMES}
    found["without NCCL"], found["said"] = without_nccl(ranks)
    if ranks.rank == 0:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
