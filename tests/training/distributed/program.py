"""Train in several ways, one after the other, as ranks under mpirun. Rank 0 prints what came out."""

import json
import sys
import zlib
from pathlib import Path

import numpy as np

import backend
from backend import asnumpy
from tests.training.loop.small_runs import Every, numbers, small_data, small_network, small_trainer
from training import SGD, Checkpoints, Loader, LossScaler, Momentum, Trainer, Update
from training.distributed.communicator import Ranks, RanksError
from training.loop import epoch
from training.loop.non_finite import NonFiniteError
from training.models import build_for
from training.models.metrics import PerClass

RUNS = {
    "plain": {"normalized": False},
    "normalized": {},
    "odd": {"normalized": False, "batch": 15},
    "accumulated": {"normalized": False, "parts": 2},
    "half": {"normalized": False, "dtype": "float16"},
    "compressed": {"normalized": False, "compress": "fp16"},
    "compressed, odd": {"normalized": False, "compress": "fp16", "batch": 9},
    # Not Adam: it would take steps by the noise that is the gradient of a bias before a normalization.
    "synchronized": {"sync_batch_norm": True, "optimizer": lambda: SGD(0.1)},
    "synchronized parts": {"sync_batch_norm": True, "parts": 2, "optimizer": lambda: SGD(0.1)},
    "clipped": {"normalized": False, "clip_norm": 0.1},
}
"""Options of ``small_trainer`` and of the trainer itself."""

OF_TRAINER = ("parts", "compress", "sync_batch_norm")


def trainer(ranks, name, folder=None, **more):
    given = {**RUNS[name], **more}
    own = {option: given.pop(option) for option in OF_TRAINER if option in given}
    if "optimizer" in given:
        given["optimizer"] = given["optimizer"]()
    scaler = {"scaler": LossScaler(64.0)} if given.get("dtype") == "float16" else {}
    made = small_trainer(**given, **scaler)
    writes = folder is not None and (ranks is None or ranks.rank == 0)
    return Trainer(
        made.network, made.train_loader, made.test_loader, made.update, epochs=2, metrics=["confusion", PerClass()],
        callbacks=[Checkpoints(folder, every=3, keep=9)] if writes else [], ranks=ranks, **own,
    )  # fmt: skip


def outcome(run):
    flat = asnumpy(run.network.params.flat).astype("float64")
    return {
        "bits": zlib.crc32(asnumpy(run.network.params.flat).tobytes()),
        "parameters": flat.tolist(),
        "state": {name: asnumpy(array).tolist() for name, array in run.network.state.items()},
        "history": [numbers(result) for result in run.history],
        "samples": run.samples,
        "position": run.random.state["position"],
    }


def trained(ranks, name, **more):
    run = trainer(ranks, name, **more)
    run.train(quiet=True)
    return outcome(run)


def resumed(ranks, folder, parts=1):
    """Go on from the checkpoint of the third step, in the middle of the first epoch."""
    run = trainer(ranks, "plain", parts=parts)
    run.resume(Path(folder) / "step-00000003.safetensors")
    run.train(quiet=True)
    return outcome(run)


def of_batches(ranks, given, parts=1, epochs=1):
    """Train on batches that a program makes itself: of 16, 16, 16 and 2 samples."""
    made = small_trainer(normalized=False)
    tested = [(x, t) for x, t in made.test_loader.epoch(0)]
    run = Trainer(made.network, given, tested, made.update, epochs=epochs, parts=parts, ranks=ranks)
    run.train(quiet=True)
    return outcome(run)


def batches(count=4, first=0):
    """Yield batches, as a generator."""
    x, t = small_data(50, first)
    for place in range(count):
        yield x[16 * place : 16 * (place + 1)], t[16 * place : 16 * (place + 1)]


def other_batches(ranks):
    """Return what is said where the second rank has a batch less, other ones, or shorter ones; on all of them."""
    second, said = ranks.rank == 1, []
    x, t = small_data(50, 0)
    for given in (
        batches(3 if second else 4),
        batches(first=int(second)),
        iter([(x[:9], t[:9]), (x[:4], t[:4]) if second else (x[:9], t[:9])]),
        list(batches(3 if second else 4)),
    ):
        try:
            of_batches(ranks, given)
        except RanksError as error:
            said.append(str(error))
    every = ranks.gather(said)
    assert every == [said] * ranks.size
    return said


def refusals(ranks):
    """Return what is said where ranks are not started alike; on all of them."""
    network = small_network()
    x, t = small_data(50, 0)
    other = x + (ranks.rank == 1)
    said = []
    for data, lr in ((other, 0.1), (x, 0.1 + 0.1 * (ranks.rank == 1))):
        loaders = Loader(data, t, 16), Loader(x, t, 16)
        try:
            Trainer(network, *loaders, Update(Momentum(lr)), epochs=1, ranks=ranks).train(quiet=True)
        except RanksError as error:
            said.append(str(error))
    every = ranks.gather(said)
    assert every == [said] * ranks.size
    return said


def diverged(ranks):
    """Return what is said where one rank has computed other bits."""
    run = trainer(ranks, "plain")
    steps = run.steps(1)
    next(steps)
    steps.close()
    run.network.params.flat[ranks.rank] += ranks.rank
    try:
        epoch._evaluated(run, 1)
    except RanksError as error:
        return str(error)
    return "nothing"


def not_finite(ranks):
    """Return what is said of a NaN among the samples: each rank looks at its own."""
    x, t = small_data(50, 0)
    x[41, 2] = np.nan
    run = Trainer(
        small_network(), Loader(x, t, 16, shuffle=False), Loader(x[:4], t[:4], 16), Update(SGD()), epochs=1, ranks=ranks
    )  # fmt: skip
    try:
        run.train(quiet=True)
    except NonFiniteError as error:
        return str(error)
    return "nothing"


def of_steps(ranks, compress="none", parts=1):
    """Train a network of characters, with a loss that is so large that sums of all steps are no float16 numbers."""
    backend.random.seed(3)
    codes = (np.arange(40)[:, None] * 3 + np.arange(33)) % 7
    train, test = (Loader(codes[:, :-1], codes[:, 1:], size, seed=1) for size in (16, 40))
    update = Update(SGD(0.1), scaler=LossScaler(2.0**15))
    own = {"ranks": ranks, "compress": compress, "parts": parts}
    run = Trainer(build_for("CharGRU", (32,), 7), train, test, update, epochs=2, **own)
    run.train(quiet=True)
    return outcome(run)


def sums(ranks):
    """Return sums of numbers whose sum depends on the order, as one process adds them up, and of float16 ones."""
    mine = np.float32(1 + ranks.rank * 1e-3) * np.arange(1, 6, dtype="float32")
    half = mine.astype("float16")
    ranks.wait([ranks.start_sum(mine), ranks.start_sum(half, compressed=True)], "added up")
    return {"float32": mine.tolist(), "float16": half.tolist(), "gathered": ranks.gather(ranks.rank)}


def raise_on(rank):
    """Train as a program that handles no exceptions, one of which this rank raises."""
    backend.use("cpu")
    ranks = Ranks.join()

    def fail(trainer, step):
        if trainer.ranks.rank == int(rank) and step == 2:
            raise RuntimeError("a bug of this program")

    run = trainer(ranks, "plain")
    run.callbacks.append(Every(fail))
    run.train(quiet=True)


def main(folder, *names):
    """Train in all ways, or in those of these names alone."""
    backend.use("cpu")
    ranks = Ranks.join()
    found = {name: trained(ranks, name) for name in names or RUNS}
    if not names:
        found["saved"] = trained(ranks, "plain", folder=folder)
        found["resumed"] = resumed(ranks, folder)
        found["sums"] = sums(ranks)
        found["not finite"] = not_finite(ranks)
        found["steps"], found["steps, compressed"] = of_steps(ranks), of_steps(ranks, "fp16")
        found["generator"] = of_batches(ranks, batches())
        found["list"] = of_batches(ranks, list(batches()), epochs=2)
        found["other batches"] = other_batches(ranks)
        found["refusals"], found["diverged"] = refusals(ranks), diverged(ranks)
    ranks.meet("ended")
    if ranks.rank == 0:
        print(json.dumps(found))


if __name__ == "__main__":
    raise_on(sys.argv[2]) if sys.argv[1] == "raise" else main(*sys.argv[1:])
