"""Train on the GPUs of several ranks, by graphs and without. Rank 0 prints what came out."""

import json

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


def main():
    ranks = Ranks.join()
    backend.use(f"cuda:{ranks.local_rank if len(backend.inspect_cuda().gpus) > 1 else 0}")
    found = {name: [trained(ranks, name, graph) for graph in (True, False)] for name in NAMES}
    if ranks.rank == 0:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
