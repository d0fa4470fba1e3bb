"""Kernels placed by ranges, sums over launches, and the table."""

import pytest

from training.profile.nsight import KernelRow, table
from training.profile.nsight.rows import bare_name, merged, place

ROWS = [
    KernelRow("update", "", "adam_step", 20, 40e-6),
    KernelRow("forward", "Convolution1", "im2col", 20, 100e-6, 40e6, 12.0),
    KernelRow("backward", "Convolution1", "col2im_gather", 20, 200e-6, 100e6),
    KernelRow("forward", "Convolution1", "sgemm", 10, 300e-6, 20e6, 2.0),
]


@pytest.mark.parametrize(
    ("ranges", "placed"),
    [
        ([], ("", "")),
        (["run", "epoch", "step"], ("", "")),
        (["run", "epoch", "step", "forward"], ("forward", "")),
        (["forward", "Convolution1", "convolution.convolution 4x1x8x8", "im2col 4x1x8x8"], ("forward", "Convolution1")),
        (["forward", "Convolution1", "im2col 4x1x8x8"], ("forward", "Convolution1")),
        (["step", "backward", "Residual1", "body", "Affine1", "gemm.matmul"], ("backward", "Residual1.body.Affine1")),
        (["step", "forward", "forward", "gemm.matmul"], ("forward", "forward")),  # a layer of that name
        (["step", "update", "optimizer.update 170", "adam_step 170"], ("update", "")),
        (["load"], ("data", "")),
    ],
)
def test_place(ranges, placed):
    assert place(ranges) == placed


@pytest.mark.parametrize(
    ("kernel", "name"),
    [
        ("im2col", "im2col"),
        ("im2col(const float *, float *, int)", "im2col"),
        ("void gemmSN<float, (int)128>(Params<float>)", "gemmSN<float, (int)128>"),
        ("void (anonymous namespace)::reduce<(bool)1>(float *)", "reduce<(bool)1>"),
    ],
)
def test_bare_name(kernel, name):
    assert bare_name(kernel) == name


def test_rows_of_one_kernel_are_one_row():
    first, second = KernelRow("forward", "A", "k", 1, 1.0, 10, 50.0), KernelRow("forward", "A", "k", 2, 3.0, 30, 90.0)
    assert merged([first, KernelRow("backward", "A", "k", 1, 1.0), second]) == [
        KernelRow("forward", "A", "k", 3, 4.0, 40, 80.0),  # percent weighted by time
        KernelRow("backward", "A", "k", 1, 1.0),
    ]
    assert merged([first, KernelRow("forward", "A", "k", 1, 1.0)]) == [
        KernelRow("forward", "A", "k", 2, 2.0)
    ]  # not half the bytes


def test_table():
    assert table(ROWS, 2000.0, steps=10).splitlines() == [
        "phase     layer         kernel         launches/step  us/step  MB/step   GB/s  % of peak",
        "forward   Convolution1  2 kernels                  3     40.0    6.000  150.0        4.5",
        "                          im2col                   2     10.0    4.000  400.0       12.0",
        "                          sgemm                    1     30.0    2.000   66.7        2.0",
        "backward  Convolution1  col2im_gather              2     20.0   10.000  500.0       25.0",
        "update    -             adam_step                  2      4.0        -      -          -",
        "total                                              7     64.0        -      -          -",
    ]


def test_a_table_without_bytes_peak_or_steps():
    lines = table([KernelRow("forward", "A", "k", 7, 1e-6)], None).splitlines()
    assert lines[0].split() == ["phase", "layer", "kernel", "launches", "us", "MB", "GB/s", "%", "of", "peak"]
    assert lines[1].split() == ["forward", "A", "k", "7", "1.0", "-", "-", "-"]


def test_least_bytes_stand_where_the_tool_counts_none():
    rows = [
        KernelRow("forward", "A", "k", 2, 4e-6),
        KernelRow("forward", "A", "l", 2, 4e-6),
        KernelRow("update", "", "adam", 2, 2e-6),
    ]
    lines = table(
        rows, 1000.0, 2, {("forward", "A"): 2_000_000, ("update", ""): 1_000, ("backward", "A"): 7}
    ).splitlines()
    assert [line.split()[-4:] for line in lines[1:]] == [
        ["4.0", "2.000", "500.0", "50.0"],
        ["2.0", "-", "-", "-"],
        ["2.0", "-", "-", "-"],
        ["1.0", "0.001", "1.0", "0.1"],
        ["5.0", "2.001", "400.2", "40.0"],
    ]
    counted = table([KernelRow("forward", "A", "k", 1, 1e-6, 5e3)], None, 1, {("forward", "A"): 1}).splitlines()
    assert counted[1].split()[-3:] == ["0.005", "5.0", "-"]


def test_the_total_of_all_bytes():
    assert table(ROWS[1:], 1000.0).splitlines()[-1].split() == ["total", "50", "600.0", "160.000", "266.7", "26.7"]


def test_a_long_name_is_cut():
    assert max(map(len, table([KernelRow("forward", "A", "k" * 500, 1, 1e-6)], None).splitlines())) < 120


def test_names_from_an_export_cannot_command_a_terminal():
    shown = table([KernelRow("forward", "A\x1b[2J", "k\u202e\r", 1, 1e-6)], None)
    assert "A\\x1b[2J  k\\u202e\\r" in shown
    assert not {"\x1b", "\u202e", "\r"} & set(shown)


def test_no_steps():
    with pytest.raises(ValueError, match="steps=0"):
        table(ROWS, None, steps=0)
