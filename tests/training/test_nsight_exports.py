"""Recorded exports read back: written by the tools' documented formats, each says which; no GPU has made them."""

import re
from pathlib import Path

import pytest

from training.profile.nsight import Row, ToolError, compute, systems
from training.profile.nsight.exports import Table, _split

RECORDED = Path(__file__).parent / "nsight"
KERNEL_HEADER = "API Start (ns),Kernel Dur (ns),PID,TID,Kernel Name"
RANGE_HEADER = "Start (ns),End (ns),Name,PID,TID"
CUTLASS = "cutlass::Kernel2<cutlass_80_simt_sgemm_64x64_8x5_nn_align1>"
GEMM = "gemmSN_NN_kernel<float, (int)128, (int)2>"


def read_systems(ranges, kernels):
    return systems.read_kernels(kernels, systems.read_ranges(ranges, "ranges.csv"), "kernels.csv")


def first_duration(text):
    table = Table(text, ("Name", "Dur"), "x.csv")
    return table.number(table.rows[0], "Dur")


@pytest.fixture
def nsys_out(tmp_path):
    for file, report in zip(systems.exported_files(tmp_path), (systems.RANGES, systems.KERNELS), strict=True):
        file.write_text((RECORDED / f"{report}.csv").read_text())
    return tmp_path


def test_nsys_gives_each_layer_and_phase_its_kernels(nsys_out):
    rows = systems.read(nsys_out, None)
    nanoseconds = {(row.phase, row.layer, row.kernel): (row.calls, round(row.seconds * 1e9)) for row in rows}
    assert nanoseconds == {  # of two steps
        ("data", "", "cupy_true_divide__float32_float_float32"): (2, 2000),
        ("data", "", "take_rows"): (2, 500),  # in the loader's thread
        ("forward", "Convolution1", "im2col"): (2, 4000),
        ("forward", "Convolution1", CUTLASS): (2, 10000),  # inside a range of cuBLAS, too
        ("forward", "Convolution1", "cupy_add__float32_float32_float32"): (2, 1000),
        ("forward", "Residual1.body.Affine1", GEMM): (2, 6000),
        ("forward", "loss", "softmax_cross_entropy"): (2, 3000),
        ("backward", "loss", "cupy_multiply__float32_float32_float32"): (2, 1000),
        ("backward", "Residual1.body.Affine1", GEMM): (2, 8000),
        ("backward", "Convolution1", "im2col"): (2, 4000),
        ("backward", "Convolution1", "col2im_gather"): (2, 5000),
        ("update", "", "adam_step"): (2, 1500),
        ("", "", "cupy_copy__float64_float64"): (2, 200),  # in a step, but in no phase
    }
    assert [row.kernel for row in rows][:3] == ["cupy_true_divide__float32_float_float32", "take_rows", "im2col"]
    assert {row.bytes for row in rows} == {row.percent_of_peak for row in rows} == {None}


def test_ncu_gives_bytes_and_shares_of_the_peak():
    rows = compute.merged(compute.read_raw((RECORDED / "ncu_raw.csv").read_text(), "ncu_raw.csv"))
    assert rows == [
        Row(
            "forward", "Convolution1", "im2col", 2, pytest.approx(10e-6), 40960, pytest.approx((50.5 * 4 + 80 * 6) / 10)
        ),
        Row("forward", "Convolution1", CUTLASS, 1, pytest.approx(1e-3), 1234560, pytest.approx(20)),
        Row("backward", "Convolution1", "im2col", 1, pytest.approx(4e-6), 10240, pytest.approx(51)),
        Row("update", "", "adam_step", 1, pytest.approx(0.75e-6), None, None),
        Row("data", "", "take_rows", 1, pytest.approx(0.25e-6), 510, pytest.approx(1.5)),
    ]


def test_a_kernel_belongs_to_the_ranges_open_when_its_thread_launched_it():
    ranges = f"""{RANGE_HEADER}
100,200,xpnet:forward,1,7
100,200,xpnet:A,1,7
200,,xpnet:backward,1,7
200,300,xpnet:B,1,7
100,200,xpnet:update,1,8
100,200,xpnet:data,2,7
"""
    kernels = f"""{KERNEL_HEADER}
200,8,1,7,at the seam
99,1,1,7,before
100,2,1,7,first
199,4,1,7,last
300,16,1,7,still open
150,32,1,8,other thread
150,64,2,7,other process
150,128,1,9,thread without ranges
"""
    rows = read_systems(ranges, kernels)
    assert {(row.kernel, row.phase, row.layer) for row in rows} == {
        ("before", "", ""),
        ("first", "forward", "A"),
        ("last", "forward", "A"),
        ("at the seam", "backward", "B"),
        ("still open", "backward", ""),
        ("other thread", "update", ""),
        ("other process", "data", ""),
        ("thread without ranges", "", ""),
    }
    assert sum(row.seconds for row in rows) == pytest.approx(255e-9)


@pytest.mark.parametrize(
    ("header", "scale"),
    [("Dur (ns)", 1e-9), ("Dur (us)", 1e-6), ("Dur (μs)", 1e-6), ("Dur (ms)", 1e-3), ("Dur (s)", 1)],
)
def test_units_in_the_header(header, scale):
    assert first_duration(f'Name,{header}\nim2col,"1,234.5"\n') == pytest.approx(1234.5 * scale)


@pytest.mark.parametrize(
    ("unit", "scale"),
    [
        ("byte", 1),
        ("Kbyte", 1e3),
        ("Mbyte", 1e6),
        ("Gbyte", 1e9),
        ("nsecond", 1e-9),
        ("usecond", 1e-6),
        ("ms", 1e-3),
        ("second", 1),
        ("%", 1),
    ],
)
def test_units_in_a_line_of_their_own(unit, scale):
    table = Table(f'"ID","m.sum"\n"","{unit}"\n"0","2,000"\n"1","n/a"\n', ("ID", "m.sum"), "x.csv")
    assert table.number(table.rows[0], "m.sum") == pytest.approx(2000 * scale)
    assert table.number_if_any(table.rows[1], "m.sum") is None


def test_notices_around_a_table_are_no_part_of_it():
    text = "Generating SQLite file a, b, c from d\n\n==PROF== 1, 2\nName,Dur (ns)\nim2col,3\n==WARNING== a, b, c\n\n"
    assert Table(text, ("Name", "Dur"), "x.csv").rows == [["im2col", "3"]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "x.csv lacks the column Name, Dur; it has no table"),
        ("SKIPPED: no data\n", "x.csv lacks the column Name, Dur; it has no table"),
        ("Name,Total (ns)\na,1\n", "x.csv lacks the column Dur; its columns are Name, Total (ns)"),
        ("Name,Dur (ns)\na,1,2\n", "x.csv has a line of 3 cells below a header of 2"),
        ("Name,Dur (fortnight)\na,1\n", "x.csv has Dur in fortnight"),
        ("Name,Dur\na,1\n", "x.csv has Dur in no unit"),
        ("Name,Dur (ns)\na,fast\n", "x.csv has 'fast' in the column Dur; a number is needed"),
        ("Name,Dur (ns)\na,n/a\n", "x.csv has 'n/a' in the column Dur; a number is needed"),
    ],
)
def test_what_cannot_be_read_is_said(text, words):
    with pytest.raises(ToolError) as caught:
        first_duration(text)
    assert words in str(caught.value)


def test_ncu_without_a_metric_or_ranges_says_what_is_missing():
    text = (RECORDED / "ncu_raw.csv").read_text()
    with pytest.raises(ToolError, match=r"lacks the column dram__bytes\.sum; its columns are ID, Process ID"):
        compute.read_raw(text.replace("dram__bytes.sum", "dram__bytes_read.sum"), "ncu_raw.csv")
    with pytest.raises(ToolError, match="lacks the column thread Domain:Push/Pop_Range"):
        compute.read_raw(text.replace("Push/Pop_Range", "Range"), "ncu_raw.csv")


def test_ncu_with_no_launch(tmp_path):
    header = "".join((RECORDED / "ncu_raw.csv").read_text().splitlines(keepends=True)[:4])
    compute.save_export(tmp_path, header)
    with pytest.raises(ToolError, match="captured no kernel"):
        compute.read(tmp_path, None)


def test_ranges_of_other_domains_alone():
    with pytest.raises(ToolError, match=r"no range of the NVTX domain xpnet; domains in it: \(default\), cuBLAS"):
        systems.read_ranges(f"{RANGE_HEADER}\n1,2,:mine,1,1\n1,2,cuBLAS:cublasSgemm_v2,1,1\n", "ranges.csv")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('"' + "x" * 200_000, "x.csv is no CSV: field larger than field limit"),
        ("Name,Dur\n" + "a," * 50_000, "x.csv has a line of 50001 cells below a header of 2: a list of 50001"),
        (",".join(["x" * 1000] * 1000), "x.csv lacks the column Name, Dur; its columns are x"),
    ],
)
def test_what_is_said_of_a_damaged_export_is_short(text, words):
    with pytest.raises(ToolError, match=re.escape(words)) as error:
        Table(text, ["Name", "Dur"], "x.csv")
    assert len(str(error.value)) < 4000


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (" Start (ns) ", ("Start", "ns")),
        ("a (b) (us)", ("a (b)", "us")),
        ("Start(ns)", ("Start", "ns")),
        ("Start (n s)", ("Start (n s)", "")),
        ("Start ()", ("Start ()", "")),
        ("Start (ns", ("Start (ns", "")),
        ("Start ns)", ("Start ns)", "")),
        ("f(x))", ("f(x))", "")),
        (" ", ("", "")),
        (" " * 130_000, ("", "")),  # a regular expression took the cube of it
        ("(" * 65_000 + ")" * 65_000, ("(" * 65_000 + ")" * 65_000, "")),
    ],
)
def test_a_header_is_split_into_name_and_unit_in_linear_time(cell, expected):
    assert _split(cell) == expected
