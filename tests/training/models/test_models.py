"""The book's networks: constructors, shapes, first weights, and the config that builds them again."""

import json

import numpy as np
import pytest

import backend
from backend import asnumpy
from training.models import MODELS, ConvNet, DeepConvNet, MultiLayerNet, SimpleConvNet, TwoLayerNet, build

DEEP_SHAPES = {
    "W1": (16, 1, 3, 3),
    "b1": (16,),
    "W2": (16, 16, 3, 3),
    "b2": (16,),
    "W3": (32, 16, 3, 3),
    "b3": (32,),
    "W4": (32, 32, 3, 3),
    "b4": (32,),
    "W5": (64, 32, 3, 3),
    "b5": (64,),
    "W6": (64, 64, 3, 3),
    "b6": (64,),
    "W7": (1024, 50),
    "b7": (50,),
    "W8": (50, 10),
    "b8": (10,),
}


def conv(filters, size=3, pad=1, stride=1):
    return {"filter_num": filters, "filter_size": size, "pad": pad, "stride": stride}


SMALL = {
    "TwoLayerNet": lambda: TwoLayerNet(6, 4, 3, weight_init_std=0.5),
    "MultiLayerNet": lambda: MultiLayerNet(6, [5, 4], 3, activation="tanh", weight_init_std="xavier"),
    "SimpleConvNet": lambda: SimpleConvNet(
        (2, 8, 7), conv(3, size=4, pad=2, stride=2), hidden_size=6, output_size=4, weight_init_std=0.2
    ),
    "DeepConvNet": lambda: DeepConvNet(
        (2, 9, 12), conv(3), conv(4, pad=0), conv(5), conv(6, size=1), conv(7, pad=2), conv(8), hidden_size=9
    ),
    "ConvNet": lambda: ConvNet((2, 12, 14), filters=(3, 4, 5), dropout_ratio=0.25, output_size=6),
}


def shapes(network):
    return {name: array.shape for name, array in network.params.items()}


def kinds(network):
    return [type(layer).__name__ for layer in network.layers.layers.values()]


def predicts(network, n=2):
    x = backend.asarray(np.random.default_rng(0).standard_normal((n, *network.input_dim)).astype("float32"))
    return asnumpy(network.predict(x))


def test_two_layer_net_of_the_book():
    network = TwoLayerNet(784, 50, 10)
    assert shapes(network) == {"W1": (784, 50), "b1": (50,), "W2": (50, 10), "b2": (10,)}
    assert kinds(network) == ["Affine", "Relu", "Affine"]
    assert shapes(TwoLayerNet(input_size=5, hidden_size=4, output_size=3, weight_init_std=0.1))["W1"] == (5, 4)


def test_multi_layer_net():
    network = MultiLayerNet(784, [50, 100], 10, activation="sigmoid")
    assert {k: v for k, v in shapes(network).items() if k[0] == "W"} == {
        "W1": (784, 50),
        "W2": (50, 100),
        "W3": (100, 10),
    }
    assert kinds(network) == ["Affine", "Sigmoid", "Affine", "Sigmoid", "Affine"]
    assert kinds(MultiLayerNet(5, (4,), 3)) == ["Affine", "Relu", "Affine"]
    assert kinds(MultiLayerNet(5, (), 3)) == ["Affine"]


def test_simple_conv_net_of_the_book():
    param = {"filter_num": 30, "filter_size": 5, "pad": 0, "stride": 1}
    expected = {
        "W1": (30, 1, 5, 5),
        "b1": (30,),
        "W2": (4320, 100),
        "b2": (100,),
        "W3": (100, 10),
        "b3": (10,),
    }
    by_keyword = SimpleConvNet(
        input_dim=(1, 28, 28), conv_param=param, hidden_size=100, output_size=10, weight_init_std=0.01
    )
    for network in (SimpleConvNet(), SimpleConvNet((1, 28, 28), param, 100, 10, 0.01), by_keyword):
        assert shapes(network) == expected
    assert kinds(network) == ["Convolution", "Relu", "Pooling", "Affine", "Relu", "Affine"]
    assert network.layers["Pooling1"].output_shape((1, 6, 6)) == (1, 3, 3)


def test_deep_conv_net_of_the_book():
    block = ["Convolution", "Relu", "Convolution", "Relu", "Pooling"]
    params = [conv(16), conv(16), conv(32), conv(32, pad=2), conv(64), conv(64)]
    by_keyword = DeepConvNet(
        input_dim=(1, 28, 28),
        **{f"conv_param_{i}": param for i, param in enumerate(params, 1)},
        hidden_size=50,
        output_size=10,
    )
    for network in (DeepConvNet(), DeepConvNet((1, 28, 28), *params, 50, 10), by_keyword):
        assert shapes(network) == DEEP_SHAPES
    assert kinds(network) == [*block * 3, "Affine", "Relu", "Dropout", "Affine", "Dropout"]


def test_conv_net():
    network = ConvNet()
    block = ["Convolution", "BatchNormalization", "Relu", "Pooling"]
    assert kinds(network) == [*block * 2, *block[:3], "Dropout", "Affine"]
    assert {name: shape for name, shape in shapes(network).items() if name[0] in "Wg"} == {
        "W1": (16, 1, 5, 5),
        "gamma1": (16,),
        "W2": (32, 16, 3, 3),
        "gamma2": (32,),
        "W3": (64, 32, 3, 3),
        "gamma3": (64,),
        "W4": (64 * 5 * 5, 10),
    }


def test_every_model_is_tested_small():
    assert list(SMALL) == list(MODELS)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_dtype_is_of_all_parameters(name, dtype):
    arguments = SMALL[name]().config["arguments"]
    network = MODELS[name](**arguments, dtype=dtype)
    assert {str(array.dtype) for array in [*network.params.values(), network.params.flat]} == {dtype}


def assert_normal(weights, std):
    """Mean and deviation of n normal numbers lie within 5 of their own deviations, std/√n and std/√(2n)."""
    n = weights.size
    assert abs(weights.mean()) < 5 * std / np.sqrt(n)
    assert abs(weights.std() - std) < 5 * std / np.sqrt(2 * n)
    assert 3 * std < abs(weights).max() < 7 * std


@pytest.mark.parametrize("std", [0.01, 0.3])
def test_weight_init_std_is_honoured(std):
    for network in (TwoLayerNet(300, 40, 30, std), SimpleConvNet(weight_init_std=std)):
        for name, array in network.params.items():
            if name[0] == "W" and array.size > 700:
                assert_normal(array, std)
            elif name[0] == "b":
                np.testing.assert_array_equal(array, 0)


def test_deep_conv_net_starts_from_he():
    for name, array in DeepConvNet().params.items():
        if name[0] == "b":
            np.testing.assert_array_equal(array, 0)
        elif array.size > 499:
            inputs = len(array) if array.ndim == 2 else array[0].size
            assert_normal(array, np.sqrt(2 / inputs))


def test_he_and_xavier_by_name():
    assert_normal(MultiLayerNet(400, [50], 10).params["W1"], np.sqrt(2 / 400))
    assert_normal(MultiLayerNet(400, [50], 10, "sigmoid", "xavier").params["W1"], np.sqrt(1 / 400))
    assert_normal(TwoLayerNet(400, 50, 10, "he").params["W1"], np.sqrt(2 / 400))


@pytest.mark.parametrize("name", SMALL)
def test_config_builds_the_network_again(device, name):
    backend.random.seed(3)
    network = SMALL[name]()
    assert network.config["model"] == name
    config = json.loads(json.dumps(network.config))
    assert config == network.config
    backend.random.seed(3)
    again = build(config)
    assert type(again) is type(network)
    assert again.config == network.config
    assert again.input_dim == network.input_dim
    assert repr(again) == repr(network)
    np.testing.assert_array_equal(asnumpy(again.params.flat), asnumpy(network.params.flat))
    np.testing.assert_array_equal(predicts(again), predicts(network))


def test_configs_do_not_share_what_they_were_given():
    param, sizes = conv(3), [4, 5]
    simple, multi = SimpleConvNet((1, 6, 6), param), MultiLayerNet(3, sizes, 2)
    param["filter_num"] = 99
    sizes.append(6)
    assert simple.config["arguments"]["conv_param"]["filter_num"] == 3
    assert multi.config["arguments"]["hidden_size_list"] == [4, 5]


@pytest.mark.parametrize("name", SMALL)
def test_same_seed_gives_the_same_weights_on_every_device(device, name):
    backend.random.seed(7)
    params = SMALL[name]().params
    assert backend.array_module(params.flat) is backend.array_module()
    with backend.use("cpu"):
        backend.random.seed(7)
        on_cpu = SMALL[name]().params
        backend.random.seed(8)
        other = SMALL[name]().params
    for parameter, array in on_cpu.items():
        assert asnumpy(params[parameter]).tobytes() == array.tobytes(), parameter
    assert not np.array_equal(on_cpu.flat, other.flat)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model": "ThreeLayerNet", "arguments": {}}, "TwoLayerNet, MultiLayerNet.*'ThreeLayerNet'"),
        ({}, "model is one of .*None"),
        ({"model": "TwoLayerNet"}, "TwoLayerNet .*input_size"),
        ({"model": "TwoLayerNet", "arguments": {"input_size": 4, "depth": 3}}, "TwoLayerNet .*depth"),
        ({"model": "SimpleConvNet", "arguments": {"conv_param": {"filter_num": 3}}}, "SimpleConvNet .*filter_size"),
        ({"model": "DeepConvNet", "arguments": {"conv_param_5": {}}}, "DeepConvNet .*filter_num"),
        ({"model": "MultiLayerNet", "arguments": {"input_size": 3, "hidden_size_list": 4, "output_size": 2}}, "Multi"),
    ],
)
def test_build_refuses_in_words(config, words):
    with pytest.raises(ValueError, match=words):
        build(config)


def test_constructors_refuse_what_cannot_work():
    with pytest.raises(ValueError, match="activation must be one of 'relu', 'sigmoid', 'tanh', got 'gelu'"):
        MultiLayerNet(4, [3], 2, activation="gelu")
    with pytest.raises(ValueError, match="'glorot'"):
        TwoLayerNet(4, 3, 2, weight_init_std="glorot")
    with pytest.raises(ValueError, match=r"-0\.1"):
        TwoLayerNet(4, 3, 2, weight_init_std=-0.1)
    with pytest.raises(ValueError, match=r"'Convolution1'.*3x3"):
        SimpleConvNet((1, 3, 3))
    with pytest.raises(ValueError, match="'Pooling3'"):
        DeepConvNet((1, 2, 2))


def test_arguments_are_bound_as_by_python():
    for call, words in (
        (lambda: TwoLayerNet(3), "TwoLayerNet: missing a required argument: 'hidden_size'"),
        (lambda: TwoLayerNet(3, 4, 5, depth=1), "TwoLayerNet: got an unexpected keyword argument 'depth'"),
        (lambda: TwoLayerNet(3, 4, 5, 6, "float32", "hinge", 8), "TwoLayerNet: too many positional arguments"),
    ):
        with pytest.raises(TypeError, match=f"^{words}$"):
            call()
    by_name = TwoLayerNet(output_size=5, hidden_size=np.int64(4), input_size=3)
    assert by_name.config == TwoLayerNet(3, 4, 5).config
    assert type(by_name.config["arguments"]["hidden_size"]) is int


def test_a_model_of_ones_own_says_what_it_is_built_on():
    class Mine(TwoLayerNet):
        def __init__(self, units):
            super().__init__(units, 4, 3)

    mine = Mine(5)
    assert build(mine.config).config == mine.config == TwoLayerNet(5, 4, 3).config
