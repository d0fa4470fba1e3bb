"""The model of a data-parallel step: the all-reduce, what of it hides under backward, and ``xpnet summary --ranks``."""

import json

import numpy as np
import pytest

from tests.support.command_line import xpnet
from training.models import DeepConvNet, TwoLayerNet
from training.optim.optimizers import SGD, AdamW
from training.profile.cost import GPUS, CostRow, StepCost, cost_of_step
from training.profile.cost.links import Cluster, Link, all_reduce_seconds, cluster_of, ring_seconds
from training.profile.cost.ranks import BUCKET_BYTES, DEVICES, Bucket, buckets_of, step_on

FAST, SLOW = Link("fast", 8e9, 1e-6), Link("slow", 1e9, 1e-5)
FLAT = Cluster(1, SLOW, SLOW)


def simulated_ring(nbytes, devices, link):
    """Pass the chunks on, step by step: each device sends one chunk at a time, and waits for that of its neighbour."""
    clocks = [0.0] * devices
    parts = {(device, chunk): {(chunk, device)} for device in range(devices) for chunk in range(devices)}
    for step in range(2 * (devices - 1)):
        sent = {}
        for device in range(devices):
            chunk = (device - step) % devices
            sent[(device + 1) % devices, chunk] = parts[device, chunk]
        for (device, chunk), added in sent.items():
            parts[device, chunk] = parts[device, chunk] | added
        clocks = [
            max(clocks[device - 1], clocks[device]) + link.latency + nbytes / devices / link.bandwidth
            for device in range(devices)
        ]
    assert all(parts[device, chunk] == {(chunk, other) for other in range(devices)} for device, chunk in parts)
    return max(clocks)


@pytest.mark.parametrize("devices", [1, 2, 3, 4, 7])
def test_the_formula_is_the_time_of_a_ring_that_reduces(devices):
    assert ring_seconds(9e6, devices, SLOW) == pytest.approx(simulated_ring(9e6, devices, SLOW))


def test_one_device_has_nothing_to_reduce():
    assert all_reduce_seconds(1e9, 1, Cluster(8, FAST, SLOW)) == 0


@pytest.mark.parametrize(
    ("devices", "inside", "nodes"), [(4, 4, 1), (8, 8, 1), (9, 5, 2), (12, 6, 2), (16, 8, 2), (1024, 8, 128)]
)
def test_over_nodes_each_device_carries_its_part(devices, inside, nodes):
    cluster = Cluster(8, FAST, SLOW)
    expected = ring_seconds(1e8, inside, FAST) + ring_seconds(1e8 / inside, nodes, SLOW)
    assert cluster.nodes_of(devices) == nodes
    assert all_reduce_seconds(1e8, devices, cluster) == expected


def test_bytes_count_at_least_and_at_most_twice_whatever_the_number():
    """A ring moves 2(n-1)/n of the bytes: what grows with n beyond that is the latency alone."""
    free = Link("free", 1e9, 0.0)
    times = [ring_seconds(1e9, devices, free) for devices in DEVICES]
    assert times[0] == 1.0
    assert times == sorted(times)
    assert times[-1] == pytest.approx(2.0, rel=2e-3)


def cost_with(*layers, itemsize="float32"):
    """A step of layers (name, parameters)."""
    rows = [CostRow(name, "Affine", (1,), parameters, {}) for name, parameters in layers]
    return StepCost(1, np.dtype(itemsize), [*rows, CostRow("optimizer", "SGD", (), 0, {})], 0)


def test_buckets_fill_from_the_end_and_are_ready_when_a_layer_is():
    cost = cost_with(("first", 10), ("second", 60), ("third", 20), ("fourth", 5))
    seconds = {
        ("fourth", "backward"): 0.5,
        ("third", "backward"): 0.5,
        ("second", "backward"): 2.0,
        ("first", "backward"): 4.0,
        ("first", "forward"): 9.0,
    }
    assert buckets_of(cost, seconds, 100) == [Bucket(100, 1.0), Bucket(240, 3.0), Bucket(40, 7.0)]
    assert buckets_of(cost, seconds, 101) == [Bucket(340, 3.0), Bucket(40, 7.0)]
    assert buckets_of(cost, seconds, 1000) == [Bucket(380, 7.0)]
    half = cost_with(("first", 10), ("second", 60), ("third", 25), itemsize="float16")
    assert sum(bucket.nbytes for bucket in buckets_of(half, seconds, 100)) == 190


def test_a_residual_block_is_one_layer_of_the_chain():
    cost = cost_with(("A", 100), ("R.body.A", 100), ("R.body.B", 100), ("R", 0), ("B", 100))
    seconds = {(row.name, "backward"): 1.0 for row in cost.rows if row.name != "optimizer"}
    assert buckets_of(cost, seconds, 400) == [Bucket(400, 1.0), Bucket(800, 4.0), Bucket(400, 5.0)]


def test_a_network_without_parameters_has_no_bucket():
    cost = cost_with(("first", 0))
    assert buckets_of(cost, {}) == []
    assert step_on(8, cost, {("first", "backward"): 1.0}, FLAT, 100).exposed == 0


def test_what_is_ready_early_hides_and_the_last_bucket_does_not():
    """Two buckets of 1 MB on two devices take 1.02 ms each (SLOW): the first is ready at 2 ms, backward ends at 10."""
    cost = cost_with(("first", 250_000), ("second", 250_000))
    seconds = {("second", "backward"): 2e-3, ("first", "backward"): 8e-3, ("first", "forward"): 5e-3}
    step = step_on(2, cost, seconds, FLAT, 1_000_000)
    assert (step.devices, step.nodes) == (2, 2)
    assert step.all_reduce == pytest.approx(2.04e-3)
    assert step.exposed == pytest.approx(1.02e-3)
    assert step.step == pytest.approx(16.02e-3)
    assert step.efficiency == pytest.approx(15 / 16.02)


def test_buckets_wait_for_each_other():
    """With little backward left, the second bucket starts when the first is done."""
    cost = cost_with(("first", 250_000), ("second", 250_000))
    seconds = {("second", "backward"): 2e-3, ("first", "backward"): 0.5e-3}
    assert step_on(2, cost, seconds, FLAT, 1_000_000).exposed == pytest.approx(2e-3 + 2.04e-3 - 2.5e-3)


def test_one_device_is_as_fast_as_alone():
    cost = cost_with(("first", 250_000))
    step = step_on(1, cost, {("first", "backward"): 2e-3}, FLAT, 100)
    assert (step.all_reduce, step.exposed, step.efficiency) == (0, 0, 1)


@pytest.mark.parametrize("devices", [0, -1])
def test_no_devices_are_refused(devices):
    with pytest.raises(ValueError, match=f"devices: expected at least 1, got {devices}"):
        step_on(devices, cost_with(), {}, FLAT, 100)


def test_empty_buckets_are_refused():
    with pytest.raises(ValueError, match="bucket_bytes: expected a positive number of bytes, got 0"):
        buckets_of(cost_with(("first", 1)), {}, 0)


@pytest.mark.parametrize(
    ("gpu", "gigabytes", "node"),
    [
        ("v100", 150, 8),
        ("rtx3090", 56.25, 2),
        ("a100", 300, 8),
        ("h100", 450, 8),
        ("h100-pcie", 300, 2),
        ("b200", 900, 8),
    ],
)
def test_nvlink_is_half_of_what_the_data_sheet_says(gpu, gigabytes, node):
    cluster = cluster_of("nvlink", gpu)
    assert (cluster.inside.bandwidth, cluster.node) == (gigabytes * 1e9, node)
    assert cluster.between == cluster_of("infiniband", None).between


@pytest.mark.parametrize("gpu", ["t4", "rtx4090", "l4", "l40s", None])
def test_what_has_no_nvlink_is_refused(gpu):
    with pytest.raises(ValueError, match=f"link nvlink: expected a GPU that has one: v100, .*, got {gpu or 'no GPU'};"):
        cluster_of("nvlink", gpu)


def test_all_other_gpus_have_nvlink():
    assert all(cluster_of("nvlink", gpu).node > 1 for gpu in GPUS.keys() - {"t4", "rtx4090", "l4", "l40s"})


def summary(*arguments):
    result = xpnet("summary", "--model", "deepconvnet", *arguments)
    assert (result.code, result.err) == (0, "")
    return result.out


def test_the_command_says_what_the_model_says():
    found = json.loads(summary("--json", "--ranks", 12, "--link", "nvlink", "--gpu", "a100", "--batch-size", 50))[
        "ranks"
    ]
    cost = cost_of_step(DeepConvNet(), 50, AdamW(weight_decay=0.05))
    seconds = {key: GPUS["a100"].seconds(work, "fp32") for key, work in cost.works.items()}
    cluster = cluster_of("nvlink", "a100")
    assert (found["devices"], found["link"], found["devices_a_node"]) == (12, "nvlink", 8)
    assert found["links"]["inside"] == cluster.inside._asdict()
    assert [step["devices"] for step in found["steps"]] == [2, 4, 8, 12, *DEVICES[3:]]
    for step in found["steps"]:
        assert step == step_on(step["devices"], cost, seconds, cluster, BUCKET_BYTES)._asdict()
    assert found["step_seconds"] == pytest.approx(sum(seconds.values()))
    assert sum(bucket["nbytes"] for bucket in found["buckets"]) == 4 * cost.parameters


def test_the_table_has_a_line_for_each_number_of_devices():
    lines = summary("--ranks", 8, "--link", "Ethernet").splitlines()
    table = [line.split() for line in lines[-len(DEVICES) :]]
    assert [row[0] for row in table] == [f"{count:,}" for count in DEVICES]
    assert lines[-len(DEVICES) - 1].split()[0] == "devices"
    (said,) = (line for line in lines if line.startswith("on 8 devices: "))
    reduced, exposed = table[2][2:4]
    assert f": {reduced} µs of all-reduce, of which {exposed} µs are not hidden" in said
    assert "0.494 MB of gradients in 1 bucket, over 25 Gb/s Ethernet (3.125 GB/s, 14 µs)" in "\n".join(lines)
    assert "(NVIDIA H100 SXM, at its peak rates)" in "\n".join(lines)


def test_backward_is_the_measured_one_where_the_device_is_measured():
    arguments = (
        "--ranks",
        2,
        "--link",
        "1:100",
        "--measure",
        "--device",
        "cpu",
        "--batch-size",
        2,
        "--model",
        "twolayernet",
    )
    result = xpnet("summary", "--json", *arguments)
    found = json.loads(result.out)
    measured = sum(layer["backward"]["measured_seconds"] for layer in found["layers"] if "backward" in layer)
    assert found["ranks"]["times_of"] == "measured on cpu"
    assert found["ranks"]["backward_seconds"] == pytest.approx(measured)
    nbytes = 4 * cost_of_step(TwoLayerNet(784, 50, 10), 2, SGD()).parameters
    assert found["ranks"]["steps"][0]["all_reduce"] == pytest.approx(2 * (1e-4 + nbytes / 2 / 1e9))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--ranks", 8), "--ranks 8 needs --link: nvlink, infiniband, ethernet, or GB/s:µs, such as 2.5:30"),
        (("--link", "nvlink"), "--link nvlink needs --ranks, the number of devices"),
        (("--ranks", 1, "--link", "nvlink"), "Invalid value for '--ranks': 1 is not in the range 2<=x<=1024."),
        (("--ranks", 8, "--link", "nvlink", "--gpu", "t4"), "link nvlink: expected a GPU that has one: "),
        (("--ranks", 8, "--link", "nvlink", "--measure", "--device", "cpu"), "h200, b200, got no GPU; other links are"),
        *(
            (("--ranks", 8, "--link", text), f"latency as GB/s:µs, such as 2.5:30, got '{text}'")
            for text in ("token-ring", "0:1", "-1:1", "nan:1", "1:inf", "1:-1", "1:2:3", ":", "1e999:1")
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(arguments, said):
    refused = xpnet("summary", *arguments)
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.startswith("Error: ")
    assert said in refused.err
    assert refused.err.count("\n") == 1
