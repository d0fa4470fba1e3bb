"""Exports read back: written by hand, in the formats of the tools' documentation and of ncu on a GPU."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from training.profile.nsight import KernelRow, ToolError, compute, systems

RECORDED = Path(__file__).parent / "nsight"
RAW = (RECORDED / "ncu_raw.csv").read_text()
CUTLASS = "cutlass::Kernel2<cutlass_80_simt_sgemm_64x64_8x5_nn_align1>"
GEMM = "gemmSN_NN_kernel<float, (int)128, (int)2>"


@pytest.fixture
def nsys_out(tmp_path):
    """A folder with the recorded export, and a function that changes it."""

    def change(statements):
        with closing(sqlite3.connect(systems.export_file(tmp_path))) as database:
            database.executescript(statements)
        return tmp_path

    change((RECORDED / "nsys_export.sql").read_text())
    return change


def test_nsys_gives_each_layer_and_phase_its_kernels(nsys_out):
    rows = systems.read(nsys_out(""), None)
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


def test_a_kernel_belongs_to_the_ranges_open_when_its_thread_launched_it(nsys_out):
    process = 1 << 24
    ranges = [
        (100, 200, "forward", process + 7, 1),
        (100, 200, "A", process + 7, 1),
        (200, None, "backward", process + 7, 1),
        (200, 300, "B", process + 7, 1),
        (100, 200, "update", process + 8, 1),
        (100, 200, "data", 2 * process + 7, 1),
        (100, 200, "backward", process + 7, 2),  # of another domain
    ]
    launches = [
        (200, 8, process + 7, "at the seam"),
        (99, 1, process + 7, "before"),
        (100, 2, process + 7, "first"),
        (199, 4, process + 7, "last"),
        (300, 16, process + 7, "still open"),
        (150, 32, process + 8, "other thread"),
        (150, 64, 2 * process + 7, "other process"),
        (150, 128, process + 9, "thread without ranges"),
    ]
    out = nsys_out(
        """DELETE FROM NVTX_EVENTS WHERE eventType = 59;
        DELETE FROM CUPTI_ACTIVITY_KIND_RUNTIME; DELETE FROM CUPTI_ACTIVITY_KIND_KERNEL; DELETE FROM StringIds;"""
    )
    with closing(sqlite3.connect(systems.export_file(out))) as database, database:
        database.executemany(
            "INSERT INTO NVTX_EVENTS (start, end, eventType, text, globalTid, domainId) VALUES (?, ?, 59, ?, ?, ?)",
            ranges,
        )
        for number, (moment, duration, thread, kernel) in enumerate(launches):
            correlation = number if thread < 2 * process else 0  # each process counts from 0
            database.execute("INSERT INTO StringIds VALUES (?, ?)", (number, f"{kernel}(float *)"))
            database.execute(
                "INSERT INTO CUPTI_ACTIVITY_KIND_RUNTIME VALUES (?, ?, 0, ?, ?, 0, 0, NULL)",
                (moment, moment + 3, thread, correlation),
            )
            database.execute(
                "INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL VALUES (900, ?, 0, 1, 7, ?, ?, ?, ?, NULL, NULL)",
                (900 + duration, correlation, thread & ~0xFFFFFF, number, number),
            )
    rows = systems.read(out, None)
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
    ("change", "words"),
    [
        ("DROP TABLE CUPTI_ACTIVITY_KIND_KERNEL", "nsys captured no kernel: the profiled steps launched none"),
        ("DROP TABLE NVTX_EVENTS", "nsys captured no range of the NVTX domain xpnet, so no kernel has a layer"),
        ("DELETE FROM NVTX_EVENTS WHERE domainId = 1", "captured no range of the NVTX domain xpnet"),
        ("ALTER TABLE NVTX_EVENTS RENAME globalTid TO tid", "is not an export of Nsight Systems 2023.4 or newer: no "),
        ("UPDATE CUPTI_ACTIVITY_KIND_RUNTIME SET start = 'soon'", "damaged: 'soon' is not a whole number"),
        ("UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET end = start + 0.5", "damaged: 0.5 is not a whole number"),
        ("UPDATE NVTX_EVENTS SET textId = 99999", "damaged: None is not a name"),
        ("DROP TABLE StringIds", "profile.sqlite is not an export of Nsight Systems 2023.4 or newer: no such table"),
    ],
)
def test_what_an_export_lacks_is_said(nsys_out, change, words):
    with pytest.raises(ToolError, match=words):
        systems.read(nsys_out(change), None)


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0" + b"x" * 200, b"no database" * 100])
def test_a_damaged_file_is_told_in_one_line(tmp_path, content):
    systems.export_file(tmp_path).write_bytes(content)
    with pytest.raises(ToolError, match=r"captured no kernel|is not an export of Nsight Systems"):
        systems.read(tmp_path, None)
    systems.export_file(tmp_path).unlink()
    with pytest.raises(ToolError, match="the export by nsys wrote no file"):
        systems.read(tmp_path, None)


def test_ncu_gives_bytes_and_shares_of_the_peak():
    rows = compute.merged(compute.read_raw(RAW, "ncu_raw.csv"))
    share = pytest.approx((50.5 * 4 + 80 * 6) / 10)
    assert rows == [
        KernelRow("forward", "Convolution1", "im2col", 2, pytest.approx(10e-6), 40960, share),
        KernelRow("forward", "Convolution1", CUTLASS, 1, pytest.approx(1e-3), 1234560, pytest.approx(20)),
        KernelRow("backward", "Convolution1", "im2col", 1, pytest.approx(4e-6), 10240, pytest.approx(51)),
        KernelRow("update", "", "adam_step", 1, pytest.approx(0.75e-6), None, None),
        KernelRow("data", "", "take_rows", 1, pytest.approx(0.25e-6), 510, pytest.approx(1.5)),
    ]


@pytest.mark.parametrize(
    ("unit", "scale"), [("us", 1e-6), ("nsecond", 1e-9), ("usecond", 1e-6), ("msecond", 1e-3), ("second", 1)]
)
def test_units_of_ncu(unit, scale):
    rows = compute.read_raw(RAW.replace('"%","us"', f'"%","{unit}"'), "ncu_raw.csv")
    assert rows[0].seconds == pytest.approx(4 * scale)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (RAW, "", "x.csv is not a table of Nsight Compute"),
        (RAW, "==PROF== nothing\n", "x.csv is not a table of Nsight Compute"),
        (RAW, '"' + "x" * 200_000 + '"\n\n', "x.csv is not a table of Nsight Compute: field larger"),
        ("dram__bytes.sum", "dram__bytes_read.sum", r"lacks the column dram__bytes\.sum; its columns are"),
        ("Push/Pop_Range", "Range", "lacks the column thread Domain:Push/Pop_Range;"),
        ('"%","us"', '"%","fortnight"', "has '4.00' 'fortnight' in the column gpu__time_duration.sum"),
        ('"%","us"', '"%"', "has a line of 16 cells below a header of 16"),
        ('"1,000"', '"fast"', "has 'fast' 'us' in the column gpu__time_duration.sum"),
        ('"1,000"', '"n/a"', "has no duration of 'cutlass"),
        ('"1,000"', '"1","2"', "has a line of 17 cells below a header of 16"),
    ],
)
def test_what_cannot_be_read_is_said_in_short(old, new, words):
    assert old in RAW
    with pytest.raises(ToolError, match=words) as error:
        compute.read_raw(RAW.replace(old, new), "x.csv")
    assert len(str(error.value)) < 4000


def test_ncu_with_no_launch(tmp_path):
    compute.save_export(tmp_path, "".join(RAW.splitlines(keepends=True)[:4]))
    with pytest.raises(ToolError, match="captured no kernel"):
        compute.read(tmp_path, None)
