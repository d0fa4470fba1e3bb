"""Files of a network that are accepted or refused; reading one changes only the network."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest

import backend
from layers.initializers import unfilled, weights
from training.models import MODELS, ConvNet, DeepConvNet, MultiLayerNet, SimpleConvNet, TwoLayerNet, build, saving
from training.models.config import checked_arguments
from training.models.loading import load_network

CONV = {"filter_num": 2, "filter_size": 3, "pad": 1, "stride": 1}
SMALL = {
    "TwoLayerNet": lambda: TwoLayerNet(4, 3, 2),
    "MultiLayerNet": lambda: MultiLayerNet(4, [3, 5], 2, "tanh", 0.1),
    "SimpleConvNet": lambda: SimpleConvNet((1, 6, 6), CONV, 5, 3),
    "DeepConvNet": lambda: DeepConvNet((1, 8, 8), *[CONV] * 6, hidden_size=4, output_size=3),
    "ConvNet": lambda: ConvNet((1, 12, 12), (2, 2, 2), 0.5, 3),
}


def arrays_of(network):
    return {name: backend.asnumpy(array) for name, array in {**network.params, **network.state}.items()}


@pytest.fixture
def two_layers(tmp_path):
    """Writes a TwoLayerNet whose config is changed; returns the file."""
    network = TwoLayerNet(4, 3, 2)

    def write(**changes):
        config = {**network.config, "arguments": {**network.config["arguments"], **changes.pop("arguments", {})}}
        saving.save_arrays(tmp_path / "model.safetensors", arrays_of(network), config | changes)
        return tmp_path / "model.safetensors"

    return write


def test_every_model_is_tried():
    assert set(SMALL) == set(MODELS)


@pytest.mark.parametrize("name", SMALL)
def test_loading_draws_nothing_and_gives_every_bit(device, tmp_path, name):
    network = SMALL[name]()
    network.save_params(tmp_path / "a.safetensors")
    backend.random.default.state = start = {"seed": 5, "stream": 0, "position": 2**64 - 1}  # one more would be too many
    loaded = load_network(tmp_path / "a.safetensors")
    assert backend.random.default.state == start
    assert loaded.config == network.config
    assert repr(loaded) == repr(network)
    for key, array in arrays_of(network).items():
        assert arrays_of(loaded)[key].tobytes() == array.tobytes()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"hidden_size": 2**62}, "hidden_size is 4611686018427387904, expected a whole number from 1 to 2,147,483,647"),
        ({"hidden_size": 2**30}, r"needs weights of shape \(4, 1073741824\), but the file has none left"),
        ({"hidden_size": 4}, r"needs weights of shape \(4, 4\), but the file has none left"),
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"hidden_size": -3}, "hidden_size is -3"),
        ({"hidden_size": True}, "hidden_size is True"),
        ({"hidden_size": 3.0}, "hidden_size is 3.0"),
        ({"hidden_size": "3"}, "hidden_size is '3'"),
        ({"hidden_size": None}, "hidden_size is None"),
        ({"hidden_size": 10**4000}, "hidden_size is a number of 13288 bits"),
        ({"weight_init_std": float("nan")}, "weight_init_std is None"),  # as JSON has it
        ({"weight_init_std": 1e300}, r"weight_init_std is 1e\+300, expected a number"),
        ({"weight_init_std": [0.1]}, "weight_init_std is"),
        ({"dtype": "O"}, "dtype is 'O', expected float16, float32 or float64"),
        ({"dtype": "S1000000"}, "dtype is 'S1000000'"),
        ({"dtype": {"names": ["a"], "formats": ["f4"]}}, "dtype is"),
        ({"depth": 3}, "TwoLayerNet takes input_size, .*, not 'depth'"),
        ({"\x1b[2J" * 100: 3}, r"not '\\x1b\[2J"),
    ],
)
def test_a_wrong_argument_is_refused_by_name(two_layers, arguments, words):
    file = two_layers(arguments=arguments)
    start = backend.random.default.state
    with pytest.raises(ValueError, match=words) as error:
        load_network(file)
    assert str(error.value).startswith(f"{file} ")
    assert len(str(error.value)) < 600
    assert backend.random.default.state == start
    backend.random.normal(3)  # and it goes on


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": ["TwoLayerNet"]}, r"is of the model \['TwoLayerNet'\], neither one of"),
        ({"model": None}, "is of the model None, neither one of"),
        ({"classes": ["a"]}, "classes: expected 2 names, .*got 1"),
        ({"classes": "ab"}, "classes is 'ab', expected a list"),
        ({"classes": [1, 2]}, r"classes\[0\] is 1, expected a text"),
        ({"classes": ["a" * 1000, "b"]}, r"classes\[0\] is .*, expected a text of at most 200 letters"),
        ({"dataset": ["mnist"]}, "dataset is"),
        ({"input_dim": []}, "input_dim"),
        ({"input_dim": [1, 2, -2]}, "input_dim.*-2"),
        ({"input_dim": [1, 3, 3]}, r"input_dim: expected a shape for a model that takes"),
        ({"input_dim": [[1], 2, 2]}, "input_dim"),
    ],
)
def test_a_wrong_word_about_the_data_is_refused(two_layers, changes, words):
    with pytest.raises(ValueError, match=words) as error:
        load_network(two_layers(**changes))
    assert "model.safetensors" in str(error.value)


def test_other_words_about_the_data_are_kept(two_layers):
    about = {"dataset": "pets", "classes": ["cat", "dog"], "input_dim": [1, 2, 2], "note": "a user's own"}
    assert {**load_network(two_layers(**about)).config, **about} == load_network(two_layers(**about)).config


def test_arguments_that_are_no_object_are_refused(tmp_path):
    file = tmp_path / "a.safetensors"
    for arguments in ([], "x", 3, None):
        saving.save_arrays(file, {}, {"model": "TwoLayerNet", "arguments": arguments})
        with pytest.raises(ValueError, match="the arguments of TwoLayerNet are"):
            load_network(file)


@pytest.mark.parametrize("param", [{}, {"filter_num": 2}, {**CONV, "x": 1}, {**CONV, "pad": -1}, {**CONV, "stride": 0}])
def test_a_wrong_convolution_is_refused(param):
    with pytest.raises(ValueError, match="conv_param"):
        build({"model": "SimpleConvNet", "arguments": {"conv_param": param}})


def test_numbers_of_numpy_are_numbers():
    arguments = {"input_size": np.int64(4), "hidden_size": 3, "output_size": 2, "weight_init_std": np.float32(0.5)}
    assert checked_arguments(TwoLayerNet, arguments) == arguments


def test_what_would_overflow_is_refused_before_anything_is_changed(tmp_path):
    network = TwoLayerNet(4, 3, 2)
    before = network.params.flat.copy()
    for large, dtype in ((1e300, "float32"), (1e5, "float16")):
        network.astype(dtype)
        before = network.params.flat.copy()
        values = {**arrays_of(network), "b2": np.full(2, large)}
        np.savez(tmp_path / "a.npz", **values)
        with np.errstate(all="raise"), pytest.raises(ValueError, match=f"b2 has numbers too large for {dtype}"):
            network.load_params(tmp_path / "a.npz")
        assert network.params.flat.tobytes() == before.tobytes()


def test_what_is_not_finite_stays_so(tmp_path):
    network = TwoLayerNet(4, 3, 2)
    np.savez(tmp_path / "a.npz", **{**arrays_of(network), "b2": np.array([np.nan, -np.inf])})
    with np.errstate(all="raise"):
        network.load_params(tmp_path / "a.npz")
    assert np.isnan(network.params["b2"][0])
    assert network.params["b2"][1] == -np.inf


def test_weights_without_drawing(device):
    start = backend.random.default.state
    with unfilled([(2, 3), (2, 3), (4,)]):
        assert not backend.asnumpy(weights((2, 3), 2)).any()
        weights((2, 3), 2, "xavier", "float64")
        with pytest.raises(ValueError, match=r"weights of shape \(2, 3\), but the file has none left"):
            weights((2, 3), 2)
        with pytest.raises(ValueError, match=r"weights of shape \(2, 1000000000000\)"):
            weights((2, 10**12), 2)
    with unfilled():
        assert not backend.asnumpy(weights((2, 3), 2)).any()
    assert backend.random.default.state == start
    assert backend.asnumpy(weights((2, 3), 2)).any()


BOMBS = textwrap.dedent(
    """
    import json, struct, sys, zlib
    import numpy as np
    from pathlib import Path
    from safetensors.numpy import save
    from training.models import TwoLayerNet

    folder = Path(sys.argv[1])
    network = TwoLayerNet(4, 3, 2)
    arrays = {name: np.asarray(array) for name, array in network.params.items()}

    def config(**arguments):
        sizes = {"input_size": 4, "output_size": 2}
        return {"xpnet": json.dumps({"model": "MultiLayerNet", "arguments": {**sizes, **arguments}})}

    def header(text):
        return len(text).to_bytes(8, "little") + text

    depth = 1100
    many = {f"{name}{n}": np.ones((1, 1)[: 2 - (name == "b")], "f4") for n in range(2, depth) for name in "Wb"}
    many |= {"W1": np.ones((4, 1), "f4"), "b1": np.ones(1, "f4")}
    many |= {f"W{depth}": np.ones((1, 2), "f4"), f"b{depth}": np.ones(2, "f4")}
    models = {
        "many layers": save(arrays, config(hidden_size_list=[1] * 50_000)),
        "many layers, many arrays": save(many, config(hidden_size_list=[1] * 20_000)),
        "one array less": save(
            {name: array for name, array in many.items() if name != "b500"}, config(hidden_size_list=[1] * (depth - 1))
        ),
        "wide layers": save(arrays, config(hidden_size_list=[2**20] * 1000)),
        "deep config": save(arrays, {"xpnet": "[" * 160_000}),
        "objects": save(arrays, {"xpnet": "[" + "{}," * 53_000 + "{}]"}),
        "deep header": header(b'{"a":' * 32_000),
        "lists in a header": header(b'{"a":[' + b"[]," * 53_000 + b"[]]}"),
        "many entries": header(json.dumps({
            str(n): {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for n in range(2_900)}).encode()),
        "a long shape": header(json.dumps(
            {"a": {"dtype": "U8", "shape": [0] * 53_000, "data_offsets": [0, 0]}}).encode()),
    }

    def deflated(text, zeros, wbits):
        packer = zlib.compressobj(9, wbits=wbits)
        start = packer.compress(text) + packer.flush(zlib.Z_FULL_FLUSH)
        block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
        return start + block * (zeros >> 20) + packer.flush()

    def zip_of(text, size):
        data = deflated(text, size, -15)
        sizes = struct.pack("<III", 0, len(data), len(text) + size)  # it is not read as far as to its checksum
        local = b"PK\\3\\4" + struct.pack("<HHHHH", 20, 0, 8, 0, 33) + sizes + struct.pack("<HH", 6, 0) + b"W1.npy"
        entry = b"PK\\1\\2" + struct.pack("<HHHHHH", 20, 20, 0, 8, 0, 33) + sizes
        entry += struct.pack("<HHHHHII", 6, 0, 0, 0, 0, 0, 0) + b"W1.npy"
        end = b"PK\\5\\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(entry), len(local) + len(data), 0)
        return local + data + entry + end

    def npy(shape):
        text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
        return b"\\x93NUMPY\\1\\0" + len(text).to_bytes(2, "little") + text

    MUCH = 300 << 20
    files = {f"model-{name}.safetensors": content for name, content in models.items()}
    files["small promise.npz"] = zip_of(npy("(10, 10)"), MUCH)
    files["network.npz"] = zip_of(npy(f"({MUCH // 4},)"), MUCH)
    files["images"] = deflated(bytes.fromhex("00000803 00000002 00000003 00000004"), MUCH, 31)
    files["liar"] = deflated(bytes.fromhex("00000803 0000ffff 0000ffff 00000002") + bytes(1000), 0, 31)

    for name, content in files.items():
        (folder / name).write_bytes(content)
    """
)

# In a process of its own, whose memory has not been larger before.
READ_THEM = textwrap.dedent(
    """
    import resource, sys, time
    from pathlib import Path
    from training.data.idx import read_idx
    from training.models import TwoLayerNet
    from training.models.loading import load_network

    resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))  # a bomb that goes off harms nobody else
    folder = Path(sys.argv[1])
    network = TwoLayerNet(4, 3, 2)
    readers = {".safetensors": load_network, ".npz": network.load_params, "": lambda file: read_idx(file, 3)}
    network.save_params(folder / "model-good.safetensors")
    load_network(folder / "model-good.safetensors")
    (folder / "model-good.safetensors").unlink()

    def peak():  # of this program; ru_maxrss would be that of the one that has started it
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024

    base = peak()
    for file in sorted(folder.iterdir()):
        begin = time.process_time()
        try:
            readers[file.suffix](file)
        except ValueError as error:
            assert str(file) in str(error), error
            assert len(str(error)) < 1000, error
        else:
            raise AssertionError(f"{file.name} was taken")
        grown = peak() - base
        print(f"{file.name}: {grown:.0f} MB, {time.process_time() - begin:.2f} s")
        assert grown < 100, f"{file.name}: {grown:.0f} MB"
    """
)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells the peak of a process in /proc")
def test_small_files_that_unpack_to_much_cost_little(tmp_path):
    for program in (BOMBS, READ_THEM):
        command = [sys.executable, "-c", program, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    assert len(done.stdout.splitlines()) == 14
