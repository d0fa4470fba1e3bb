"""The launcher: what it reads from a source, what it refuses, and when it compiles."""

import re

import numpy as np
import pytest

import backend
from backend import asnumpy, xp
from kernels.batch_statistics import batch_statistics
from kernels.col2im import col2im
from kernels.core import catalog, launch
from kernels.core.compiling import KernelError
from kernels.core.geometry import STRUCT
from kernels.core.launch import BLOCK, Kernel, block_size, blocks_of
from kernels.core.signature import Parameter, element_counts
from kernels.core.window import Window
from kernels.max_pooling import max_pool, max_pool_backward
from tests.support.checks import assert_same, normal, whole
from tests.support.kernel_cache import compiled_in_a_new_process

SOURCES = catalog.files()
PRELUDE = launch.FOLDER / "core" / "prelude.cu"
GATHER = Kernel("col2im.cu", "col2im_gather")


def names(file):
    text = (launch.FOLDER / file).read_text()
    return re.findall(r'extern "C" __global__ void (\w+)\(', text)


def test_parameters_are_read_from_the_source():
    first, second, third, fourth = GATHER.parameters[:4]
    size = (("", "count"), ("/", "pixels"), ("*", "windows"), ("*", "taps"))
    assert first == Parameter("columns", "T", is_array=True, is_const=True, size=size)
    assert second == Parameter("image", "T", is_array=True, is_const=False, size=(("", "count"),))
    assert third == Parameter("count", "INDEX", is_array=False, is_const=False)
    assert fourth == Parameter("g", "Geometry", is_array=False, is_const=False)


def test_sizes_are_products_from_left_to_right():
    struct = Window((2, 3), (4, 5), (6, 7, 8, 9), (10, 11)).over((30, 40)).struct(7)
    count = 30 * 40 * 7
    counts = element_counts(GATHER.parameters, {"count": count, "g": struct, "tap_step": 1, "channel_step": 1})
    windows = int(struct["out_height"]) * int(struct["out_width"])
    assert counts == {"columns": 7 * windows * 6, "image": count}


@pytest.mark.parametrize("file", SOURCES)
def test_every_kernel_has_parameters_of_known_types(file):
    known = {*launch._DTYPES, "T", "ACC", "INDEX", "Geometry"}
    assert names(file)
    for name in names(file):
        assert {parameter.kind for parameter in Kernel(file, name).parameters} <= known, name


# Partial results of ranges of rows, whose number is no parameter of the kernel that writes them; the kernel that reads
# them says it.
UNSIZED = {("batch_norm_moments", "means"), ("batch_norm_moments", "squares")}
UNSIZED |= {("batch_norm_products", "products"), ("batch_norm_products", "sums")}
UNSIZED |= {("batch_norm_join", "joined_means"), ("batch_norm_join", "joined_squares")}


@pytest.mark.parametrize("file", SOURCES)
def test_every_array_says_how_many_elements_it_has(file):
    for name in names(file):
        parameters = Kernel(file, name).parameters
        numbers = {parameter.name for parameter in parameters if not parameter.is_array}
        if any(parameter.kind == "Geometry" for parameter in parameters):
            numbers |= {*STRUCT.names, "pixels", "windows", "taps"}
        for parameter in parameters:
            assert bool(parameter.size) == (parameter.is_array and (name, parameter.name) not in UNSIZED)
            assert all(word in numbers or word.isdigit() for _, word in parameter.size), (name, parameter.name)


JOINED = sorted({f"core/{file}" for files in launch.JOINED.values() for file in files})


@pytest.mark.parametrize("file", [*SOURCES, *catalog.TILED, *JOINED])
def test_sources_need_no_header_and_have_no_mangled_names(file):
    text = (launch.FOLDER / file).read_text()
    assert "#include" not in text
    assert text.startswith("// ")
    assert text.count("__global__") == text.count('extern "C" __global__ void ')


def test_an_unknown_kernel_is_refused():
    with pytest.raises(ValueError, match=r"col2im\.cu has no kernel col3im"):
        _ = Kernel("col2im.cu", "col3im").parameters


def test_macros_say_the_types():
    for dtype, t, acc in (
        ("float16", "half16", "float"),
        ("float32", "float", "float"),
        ("float64", "double", "double"),
    ):
        code = GATHER.code(dtype, wide=False)
        assert f"#define T {t}\n" in code
        assert f"#define ACC {acc}\n" in code
        assert "#define INDEX int\n" in code
    assert "#define INDEX long long\n" in GATHER.code("float32", wide=True)


def test_the_struct_is_that_of_the_source():
    text = PRELUDE.read_text()
    members = re.search(r"struct Geometry \{\s*int ([^;]*);\s*\};", text)[1]
    assert tuple(name.strip() for name in members.split(",")) == STRUCT.names
    assert all(STRUCT[name] == "int32" for name in STRUCT.names)
    assert STRUCT.itemsize == 4 * len(STRUCT.names)


def test_the_struct_has_the_numbers_of_the_geometry():
    struct = Window((2, 3), (4, 5), (6, 7, 8, 9), (10, 11)).over((30, 40)).struct(1, first_row=2, rows=3)
    expected = {"channels": 1, "height": 30, "width": 40, "kernel_height": 2, "kernel_width": 3, "stride_height": 4}
    expected |= {"stride_width": 5, "pad_top": 6 - 2 * 4, "pad_left": 8, "dilation_height": 10, "dilation_width": 11}
    expected |= {"out_height": 3, "out_width": (40 + 8 + 9 - 23) // 5 + 1}
    assert {name: int(struct[name]) for name in STRUCT.names} == expected


def test_a_geometry_too_large_for_the_device_is_refused():
    with pytest.raises(ValueError, match="too large for kernels"):
        Window(1).over((4, 4)).struct(1 << 31)


@pytest.mark.gpu
def test_the_device_reads_the_struct_as_the_host_writes_it():
    import cupy

    prelude = PRELUDE.read_text()
    struct = re.search(r"struct Geometry \{[^}]*\};", prelude)[0]
    stores = " ".join(f"y[{i}] = g.{name};" for i, name in enumerate(STRUCT.names))
    code = f'{struct} extern "C" __global__ void members(int *y, Geometry g, int last) {{ {stores} y[13] = last; }}'
    with backend.use("cuda"):
        y = xp.zeros(14, "int32")
        given = Window((2, 3), (4, 5), (6, 7, 8, 9), (10, 11)).over((30, 40)).struct(12)
        cupy.RawKernel(code, "members")((1,), (1,), (y, given, np.int32(99)))
        assert asnumpy(y).tolist() == [*given.item(), 99]


def arguments():
    """Return valid arguments of col2im: 2 images of 3x3 with 2 channels, a window of 2."""
    window = Window(2)
    columns, image = whole((2 * 4, 8), "float32"), xp.zeros((2, 3, 3, 2), "float32")
    return [columns, image, image.size, window.over((3, 3)).struct(2), 2, 1]


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("place", "wrong", "error", "message"),
    [
        (0, lambda a: asnumpy(a), TypeError, "columns: needs a device array, got ndarray"),
        (0, lambda a: None, TypeError, "columns: needs a device array, got NoneType"),
        (1, lambda a: a.astype("float64"), TypeError, "image: needs float32, got float64"),
        (1, lambda a: a.transpose(0, 3, 1, 2), ValueError, "image: needs a C-contiguous array, got strides"),
        (1, lambda a: xp.zeros((2, 3, 3, 4), "float32")[..., ::2], ValueError, "image: needs a C-contiguous array"),
        (0, lambda a: a[:-1], ValueError, "columns: needs 64 elements, got 56 in (7, 8)"),
        (0, lambda a: xp.zeros((8, 9), "float32"), ValueError, "columns: needs 64 elements, got 72 in (8, 9)"),
        (1, lambda a: a[:1], ValueError, "image: needs 36 elements, got 18 in (1, 3, 3, 2)"),
        (2, lambda a: 37, ValueError, "image: needs 37 elements, got 36 in (2, 3, 3, 2)"),
        (2, lambda a: 36.0, TypeError, "count: needs a whole number, got 36.0"),
        (2, lambda a: xp.asarray(36), TypeError, "count: needs a plain number, got an array"),
        (3, lambda a: 7, TypeError, "g: needs the struct of a Geometry, got int"),
        (3, lambda a: np.float32(7), TypeError, "g: needs the struct of a Geometry, got float32"),
        (4, lambda a: 1 << 31, ValueError, "tap_step: 2147483648 does not fit int32"),
        (4, lambda a: 2.0, TypeError, "tap_step: needs a whole number, got 2.0"),
    ],
)
@pytest.mark.parametrize("planned", [False, True], ids=["first launch", "after one like it"])
def test_arguments_are_refused(monkeypatch, place, wrong, error, message, planned):
    monkeypatch.setattr(launch, "_plans", {})
    with backend.use("cuda"):
        given = arguments()
        if planned:
            GATHER(36, *given)
        given[place] = wrong(given[place])
        before = asnumpy(given[1]).copy()
        with pytest.raises(error) as caught:
            GATHER(36, *given)
        assert message in str(caught.value)
        assert str(caught.value).startswith("kernel col2im_gather")
        assert_same(given[1], before)


@pytest.mark.gpu
def test_a_launch_like_another_is_checked_once_and_computes_with_its_own_arrays(monkeypatch):
    monkeypatch.setattr(launch, "_plans", {})
    with backend.use("cuda"):
        checked = []
        check = Kernel._check
        monkeypatch.setattr(Kernel, "_check", lambda self, *given: checked.append(1) or check(self, *given))
        for seed in range(3):
            columns = normal((2 * 4, 8), seed=seed)
            expected = asnumpy(col2im(columns, (2, 2, 3, 3), Window(2), "HWC")).copy()
            _, image, *rest = arguments()
            GATHER(36, columns, image, *rest)
            assert_same(image.transpose(0, 3, 1, 2), expected)
        assert len(checked) == 2  # this kernel, and col2im's own
        with blocks_of(64):
            GATHER(36, columns, image, *rest)
        assert len(checked) == 3


@pytest.mark.gpu
def test_plans_hold_no_array(monkeypatch):
    monkeypatch.setattr(launch, "_plans", {})
    with backend.use("cuda"):
        given = arguments()
        GATHER(36, *given)
        (plan,) = launch._plans.values()
        assert not any(hasattr(value, "data") and hasattr(value.data, "ptr") for value in plan.values)


@pytest.mark.gpu
def test_too_few_and_too_many_arguments_are_refused():
    with backend.use("cuda"):
        for given in (arguments()[:-1], [*arguments(), 1]):
            with pytest.raises(TypeError, match=rf"takes 6 arguments \(columns, .*, channel_step\), got {len(given)}"):
                GATHER(36, *given)


@pytest.mark.gpu
def test_nothing_is_launched_for_nothing(monkeypatch):
    monkeypatch.setattr(Kernel, "compiled", lambda *given: pytest.fail("compiled"))
    with backend.use("cuda"):
        image = xp.zeros((0, 3, 3, 2), "float32")
        GATHER(0, whole((0, 8), "float32"), image, 0, Window(2).over((3, 3)).struct(2), 2, 1)


@pytest.mark.gpu
def test_another_type_of_numbers_is_refused():
    with backend.use("cuda"):
        columns, image, *rest = arguments()
        with pytest.raises(TypeError, match="col2im_gather: needs float16, float32, float64, got uint8"):
            GATHER(36, columns.astype("uint8"), image.astype("uint8"), *rest)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_wide_indices_compute_the_same(monkeypatch, dtype):
    """Past 2³¹ elements the kernels count in 64 bits; here past 1."""
    window = Window(3, 2, 1)
    with backend.use("cuda"):
        columns, x = whole((2 * 9, 27), dtype), whole((2, 3, 5, 5), dtype)
        dy = whole((2, 3, 3, 3), dtype, 1)

        def results():
            y, argmax = max_pool(x, window)
            return col2im(columns, x.shape, window), y, argmax, max_pool_backward(dy, argmax, x.shape, window)

        expected = results()
        used = []
        compiled = Kernel.compiled
        monkeypatch.setattr(Kernel, "compiled", lambda self, t, wide: used.append(wide) or compiled(self, t, wide))
        monkeypatch.setattr(launch, "_NARROW", 1)
        monkeypatch.setattr(launch, "_plans", {})
        for one, other in zip(expected, results(), strict=True):
            assert_same(other, one)
        assert used == [True] * 3


@pytest.mark.gpu
def test_a_grid_smaller_than_the_elements_reaches_them_all(monkeypatch):
    with backend.use("cuda"):
        columns, shape, window = whole((4 * 81, 27), "float32"), (4, 3, 9, 9), Window(3, 1, 1)
        expected = col2im(columns, shape, window)
        monkeypatch.setattr(launch, "_MOST_BLOCKS", 2)
        monkeypatch.setattr(launch, "_plans", {})
        assert_same(col2im(columns, shape, window), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("threads", [32, 128, 1024])
def test_blocks_of_another_size_compute_the_same(threads):
    with backend.use("cuda"):
        columns, shape, window = normal((4 * 81, 27)), (4, 3, 9, 9), Window(3, 1, 1)
        expected = col2im(columns, shape, window)
        with blocks_of(threads):
            assert_same(col2im(columns, shape, window), expected)


@pytest.mark.gpu
def test_a_block_larger_than_the_kernels_shared_memory_is_refused():
    with backend.use("cuda"), blocks_of(512):
        message = "kernel batch_norm_moments: a block has at most 256 threads, 512 were asked for"
        with pytest.raises(ValueError, match=message):
            batch_statistics(normal((7, 3)))


def test_the_size_of_blocks_comes_back():
    with blocks_of(64):
        assert block_size() == 64
        with pytest.raises(ZeroDivisionError), blocks_of(32):
            _ = block_size() / 0
        assert block_size() == 64
    assert block_size() == BLOCK


@pytest.mark.parametrize("threads", [16, 96, 2048])
def test_blocks_of_a_size_that_is_none_are_refused(threads):
    with pytest.raises(ValueError, match=f"or 1024 threads, not {threads}"), blocks_of(threads):
        pass
    assert block_size() == BLOCK


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("order", ["CHW", "HWC"])
@pytest.mark.parametrize("window", [Window((2, 3), (2, 2), 1, (1, 2)), Window(1), Window(3, 1, 1)], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_scatter_adds_up_to_the_same(dtype, order, window, channels):
    """Whole numbers have no rounding: the order in which threads come does not show."""
    shape, taps = (2, channels, 5, 7), window.kernel[0] * window.kernel[1]
    with backend.use("cuda"):
        columns = whole((2 * int(np.prod(window.over(shape[2:]).output)), channels * taps), dtype)
        scattered = col2im(columns, shape, window, order, method="scatter")
        assert_same(scattered, col2im(columns, shape, window, order))
        assert scattered.dtype == dtype


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="'gather', 'scatter', got 'sum'"):
        col2im(whole((4, 4), "float32"), (1, 1, 3, 3), Window(2), method="sum")


@pytest.mark.gpu
def test_a_kernel_that_does_not_compile_shows_the_compilers_words_and_the_line():
    kernel = Kernel("col2im.cu", "col2im_gather")
    kernel.__dict__["source"] = kernel.source.replace("ACC sum = 0;", "ACC sum = zero;", 1)
    with backend.use("cuda"), pytest.raises(KernelError) as caught:
        kernel.compiled("float32", False)
    message = str(caught.value)
    line = 1 + kernel.source[: kernel.source.index("ACC sum = zero;")].count("\n")
    assert "kernel col2im_gather in col2im.cu for float32 does not compile" in message
    assert f"col2im.cu({line})" in message
    assert '"zero" is undefined' in message


@pytest.mark.gpu
def test_without_the_compilers_library_it_says_where_to_look(monkeypatch):
    from cupy.cuda import compiler

    def missing():
        raise RuntimeError('Failure finding "libnvrtc.so.12"')

    kernel = Kernel("col2im.cu", "col2im_gather")
    kernel.__dict__["source"] = kernel.source + "// not compiled before\n"
    monkeypatch.setattr(compiler, "_get_nvrtc_version", missing)
    with backend.use("cuda"), pytest.raises(KernelError) as caught:
        kernel.compiled("float32", False)
    assert str(caught.value) == (
        "kernel col2im_gather in col2im.cu for float32 cannot be compiled here: "
        'Failure finding "libnvrtc.so.12"; xpnet devices says what to install'
    )


@pytest.mark.parametrize("file", catalog.files())
def test_no_block_is_larger_than_the_shared_memory_of_its_kernel(file):
    """Also where a file that others are joined with says how large that is."""
    for name in catalog.kernels_of(file):
        kernel = Kernel(file, name)
        sizes = re.findall(r"#define MOST_THREADS (\d+)", kernel.code("float32", False))
        assert sizes or "MOST_THREADS" not in kernel.code("float32", False)
        assert [kernel.most_threads] == ([int(size) for size in sizes] or [1024])


@pytest.mark.gpu
def test_a_second_process_compiles_nothing(tmp_path):
    """And the first compiles a file once, for two of its kernels."""
    first = compiled_in_a_new_process(tmp_path)
    assert sorted(name for name in first if name.endswith(".cu")) == ["col2im.cu", "pooling.cu"]
    files = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(files) == len(first)
    assert compiled_in_a_new_process(tmp_path) == []
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == files
