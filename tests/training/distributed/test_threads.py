"""The threads of a rank, its share of the cores that it may run on; and its GPU."""

from types import SimpleNamespace

import pytest

import backend
from training.cli import ranks, train
from training.cli.common import UserError
from training.cli.resume import stored_options
from training.distributed import communicator

ALL = frozenset(range(8))
NODES = [frozenset(range(4)), frozenset(range(4)), frozenset(range(4, 8)), frozenset(range(4, 8))]


@pytest.mark.parametrize(
    ("every", "shares"),
    [
        ([ALL], [8]),
        ([ALL] * 2, [4, 4]),  # not bound, also where all of them have been given a part of the machine
        ([ALL] * 3, [2, 2, 2]),
        ([ALL] * 9, [1] * 9),
        ([frozenset({0, 1, 2}), frozenset({3, 4}), frozenset({5})], [3, 2, 1]),  # bound to cores of their own
        (NODES, [2, 2, 2, 2]),  # two bound to each half
        ([frozenset({0, 1, 2}), frozenset({2, 3})], [2, 1]),
    ],
)
def test_a_core_is_shared_by_the_ranks_that_may_run_on_it(every, shares):
    assert [communicator._share(own, every) for own in every] == shares


@pytest.mark.parametrize(("count", "threads", "device"), [("", None, "cuda:0"), ("2", 3, "cuda"), ("4", None, "cuda")])
def test_a_run_goes_on_with_its_threads_where_as_many_ranks_do(monkeypatch, count, threads, device):
    """And with a GPU for each rank: the one in the checkpoint is rank 0's."""
    monkeypatch.setenv("PMI_RANK", "1")
    monkeypatch.setenv("PMI_SIZE", count)
    config = {"settings": {}, "device": {"name": "cuda:0"}, "threads": 3, "ranks": 2}
    context = train.command.make_context("train", [], resilient_parsing=True)
    found = stored_options(context, {"device": "auto", "threads": None}, config)
    assert (found["threads"], found["device"]) == (threads, device)


def test_each_rank_takes_its_own_gpu(monkeypatch):
    """Not one that is named for all: only where the launcher shows each rank its own is that another one for each."""
    third = SimpleNamespace(local_rank=2, local_size=4, host="red", threads=5)
    gpus = [object()] * 4
    monkeypatch.setattr(backend, "inspect_cuda", lambda: SimpleNamespace(usable=True, gpus=gpus))
    assert ranks.own_device(third, "auto", None) == ranks.own_device(third, "cuda", None) == ("cuda:2", 5)
    assert ranks.own_device(third, "cpu", 3) == ("cpu", 3)
    with pytest.raises(UserError, match="--device cuda:1 is one GPU for all ranks: expected --device cuda"):
        ranks.own_device(third, "cuda:1", None)
    del gpus[3]
    with pytest.raises(UserError, match="red has 4 ranks and 3 GPUs: expected a GPU for each rank"):
        ranks.own_device(third, "cuda", None)
    del gpus[1:]
    assert ranks.own_device(third, "cuda", None)[0] == ranks.own_device(third, "cuda:0", None)[0] == "cuda:0"
