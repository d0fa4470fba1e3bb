import inspect

import numpy as np
import pytest

from bench import sides
from bench.workloads import DisagreementError, check_agreement, distance, first_values, workloads
from layers import Convolution

XPNET, TEXTBOOK = sides.load("xpnet"), sides.load("textbook")
WORKLOADS = {each.name: each for each in workloads()}
OF_TEXTBOOK = {name: each for name, each in WORKLOADS.items() if name != "W5"}
DONE_BY = {"torch": list(WORKLOADS), "dezero": list(OF_TEXTBOOK), "thinc": ["W1a", "W1b"]}
named = pytest.mark.parametrize("workload", WORKLOADS.values(), ids=WORKLOADS)


def test_the_textbook_has_no_residual_networks():
    assert [name for name, each in WORKLOADS.items() if each.case(TEXTBOOK, batch=1) is None] == ["W5"]


@pytest.mark.parametrize("workload", OF_TEXTBOOK.values(), ids=OF_TEXTBOOK)
def test_the_textbook_computes_what_xpnet_does(workload):
    expected = first_values(workload, XPNET, batch=4)
    given = first_values(workload, TEXTBOOK, batch=4)
    assert given.keys() == expected.keys()
    check_agreement(workload, "textbook", given, expected)


@pytest.mark.parametrize("peer", ["torch", "dezero", "thinc"])
@pytest.mark.filterwarnings("default")  # theirs
def test_a_peer_computes_what_xpnet_does(peer):
    if not sides.installed(peer):
        pytest.skip(f"{peer} is not installed; the extra `bench` has it")
    side = sides.load(peer)
    done = []
    for workload in WORKLOADS.values():
        if workload.case(side, workload.ways(side)[0], batch=4) is not None:
            done.append(workload.name)
            expected = first_values(workload, XPNET, batch=4)
            for way in workload.ways(side):
                check_agreement(workload, peer, first_values(workload, side, way, batch=4), expected)
    assert done == DONE_BY[peer]


@named
def test_every_side_gets_the_same_float32(workload):
    first, second = (workload.make(3, True) for _ in range(2))
    for name, value in first.items():
        if isinstance(value, np.ndarray):
            assert value.dtype == ("int32" if name == "t" else "float32")
            np.testing.assert_array_equal(value, second[name])
        elif name == "network":
            assert value.params.flat.dtype == "float32"
            np.testing.assert_array_equal(value.params.flat, second[name].params.flat)


@named
def test_steps_can_be_repeated(workload):
    for side in (XPNET, TEXTBOOK):
        case = workload.case(side, batch=2)
        if case is None:
            continue
        with case.inside():
            case.step()
            case.step()
        assert all(np.isfinite(value).all() for value in case.values().values())


def test_winograd_is_timed_where_the_convolution_has_it():
    assert ("W4-winograd" in WORKLOADS) == ("winograd" in inspect.signature(Convolution).parameters)


def test_dropout_is_on_where_it_is_timed():
    values = []
    for dropout in (True, False):
        case = WORKLOADS["W3"].case(XPNET, batch=4, dropout=dropout)
        case.step()
        values.append(case.values()["loss"])
    assert values[0] != values[1]


def test_other_values_are_refused_by_name():
    workload = WORKLOADS["softmax"]
    expected = first_values(workload, XPNET, batch=4)
    wrong = expected | {"dx": expected["dx"] * 1.01}
    with pytest.raises(
        DisagreementError, match=r"softmax: dx of torch differs from xpnet's by 1\.0e-02; expected at most 0\.0001"
    ):
        check_agreement(workload, "torch", wrong, expected)
    with pytest.raises(DisagreementError, match="no value"):
        check_agreement(workload, "torch", {}, expected)
    with pytest.raises(DisagreementError, match="loss of torch differs from xpnet's by nan"):
        check_agreement(workload, "torch", {"loss": np.array(np.nan)}, expected)


def test_distance_is_relative_and_shapes_count():
    assert distance(np.array([3.0, 4.5]), np.array([3.0, 4.0])) == pytest.approx(0.1)
    assert distance(np.ones((2, 1)), np.ones((1, 2))) == np.inf
