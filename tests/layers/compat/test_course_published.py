"""The course's checks of its functions: inputs at equal steps or of NumPy's seed 231, and the numbers that notebooks
print for them, up to the printed digits.

What is random in a notebook is drawn on the host, in its order, and moved to the device.
"""

import numpy as np
import pytest

import backend
from backend import asnumpy, xp
from layers.compat import course
from tests.support.course_networks import FullyConnectedNet, ThreeLayerConvNet, TwoLayerNet


def spread(shape, first, last):
    """Numbers from ``first`` to ``last`` at equal steps, float64."""
    return backend.asarray(np.linspace(first, last, int(np.prod(shape))).reshape(shape))


def drawn(*shapes):
    """Normal numbers of seed 231, one array a shape."""
    rng = np.random.RandomState(231)
    return [backend.asarray(rng.randn(*shape)) for shape in shapes]


def assert_printed(actual, text, half=5.1e-9):
    """Asserts that ``actual`` prints as the notebook's numbers do, to eight decimals unless told otherwise."""
    expected = np.array(text if not isinstance(text, str) else text.split(), float).reshape(actual.shape)
    assert np.abs(asnumpy(actual) - expected).max() < half


def hidden_units(X, W1, W2):
    """Return the numbers that the notebooks normalize: two layers without a bias."""
    return xp.maximum(0, X @ W1) @ W2


# -- layers --------------------------------------------------------------------------------------------------------


def test_convolution(device):
    x, w, b = spread((2, 3, 4, 4), -0.1, 0.5), spread((3, 3, 4, 4), -0.2, 0.3), spread((3,), -0.1, 0.2)
    out, _ = course.conv_forward_naive(x, w, b, {"stride": 2, "pad": 1})
    text = """-0.08759809 -0.10987781 -0.18387192 -0.2109216   0.21027089  0.21661097  0.22847626  0.23004637
               0.50813986  0.54309974  0.64082444  0.67101435 -0.98053589 -1.03143541 -1.19128892 -1.24695841
               0.69108355  0.66880383  0.59480972  0.56776003  2.36270298  2.36904306  2.38090835  2.38247847"""
    assert out.shape == (2, 3, 2, 2)
    assert_printed(out, text)


def test_pictures_under_two_filters(device):
    """To gray, and edges in the blue channel; the biases are integers. The pictures are random."""
    x = backend.asarray(np.random.RandomState(0).randint(0, 256, (2, 3, 20, 20)).astype(float))
    w, b = np.zeros((2, 3, 3, 3)), np.array([0, 128])
    w[0, :, 1, 1] = 0.3, 0.6, 0.1
    w[1, 2] = [[1, 2, 1], [0, 0, 0], [-1, -2, -1]]
    out, _ = course.conv_forward_naive(x, backend.asarray(w), backend.asarray(b), {"stride": 1, "pad": 1})
    gray, edges = asnumpy(out[:, 0]), asnumpy(out[:, 1])
    x = asnumpy(x)
    assert np.allclose(gray, 0.3 * x[:, 0] + 0.6 * x[:, 1] + 0.1 * x[:, 2])
    above, below = x[:, 2, :-2], x[:, 2, 2:]
    smooth = (above - below)[:, :, :-2] + 2 * (above - below)[:, :, 1:-1] + (above - below)[:, :, 2:]
    assert np.allclose(edges[:, 1:-1, 1:-1], smooth + 128)


def test_max_pooling(device):
    x = spread((2, 3, 4, 4), -0.3, 0.4)
    out, _ = course.max_pool_forward_naive(x, {"pool_width": 2, "pool_height": 2, "stride": 2})
    text = """-0.26315789 -0.24842105 -0.20421053 -0.18947368 -0.14526316 -0.13052632 -0.08631579 -0.07157895
              -0.02736842 -0.01263158  0.03157895  0.04631579  0.09052632  0.10526316  0.14947368  0.16421053
               0.20842105  0.22315789  0.26736842  0.28210526  0.32631579  0.34105263  0.38526316  0.4"""
    assert_printed(out, text)


def test_batch_normalization_in_training(device):
    a = hidden_units(*drawn((200, 50), (50, 60), (60, 3)))
    assert_printed(a.mean(axis=0), "-2.3814598 -13.18038246 1.91780462")
    assert_printed(a.std(axis=0), "27.18502186 34.21455511 37.68611762")
    out, _ = course.batchnorm_forward(a, xp.ones((3,)), xp.zeros((3,)), {"mode": "train"})
    assert_printed(out.mean(axis=0), "0 0 0", 1e-15)
    assert_printed(out.std(axis=0), "0.99999999 1. 1.")
    gamma, beta = xp.asarray([1.0, 2.0, 3.0]), xp.asarray([11.0, 12.0, 13.0])
    out, _ = course.batchnorm_forward(a, gamma, beta, {"mode": "train"})
    assert_printed(out.mean(axis=0), "11 12 13", 1e-13)
    assert_printed(out.std(axis=0), "0.99999999 1.99999999 2.99999999")


def test_batch_normalization_in_evaluation(device):
    """After 50 batches. The text's last digit is one less in the standard deviations: a rounding."""
    rng = np.random.RandomState(231)
    W1, W2 = (backend.asarray(rng.randn(*shape)) for shape in ((50, 60), (60, 3)))
    bn_param, gamma, beta = {"mode": "train"}, xp.ones(3), xp.zeros(3)
    for _ in range(50):
        course.batchnorm_forward(hidden_units(backend.asarray(rng.randn(200, 50)), W1, W2), gamma, beta, bn_param)
    bn_param["mode"] = "test"
    a = hidden_units(backend.asarray(rng.randn(200, 50)), W1, W2)
    out, _ = course.batchnorm_forward(a, gamma, beta, bn_param)
    assert_printed(out.mean(axis=0), "-0.03927354 -0.04349152 -0.10452688")
    assert_printed(out.std(axis=0), "1.01531427 1.01238373 0.97819987", 1.6e-8)


@pytest.mark.parametrize("ln_param", [{"mode": "train"}, {}, None])
def test_layer_normalization(device, ln_param):
    a = hidden_units(*drawn((4, 50), (50, 60), (60, 3)))
    assert_printed(a.mean(axis=1), "-59.06673243 -47.60782686 -43.31137368 -26.40991744")
    assert_printed(a.std(axis=1), "10.07429373 28.39478981 35.28360729 4.01831507")
    out, _ = course.layernorm_forward(a, xp.ones(3), xp.zeros(3), ln_param)
    assert_printed(out.mean(axis=1), "0 0 0 0", 2e-15)
    assert_printed(out.std(axis=1), "0.99999995 0.99999999 1. 0.99999969")
    gamma, beta = xp.asarray([3.0, 3.0, 3.0]), xp.asarray([5.0, 5.0, 5.0])
    out, _ = course.layernorm_forward(a, gamma, beta, ln_param)
    assert_printed(out.mean(axis=1), "5 5 5 5", 1e-14)
    assert_printed(out.std(axis=1), "2.99999985 2.99999998 2.99999999 2.99999907")


def test_spatial_batch_normalization_in_training(device):
    """Its second gamma and beta are integers; the dictionary is used twice."""
    (x,) = drawn((2, 3, 4, 5))
    x, bn_param, axes = 4 * x + 10, {"mode": "train"}, (0, 2, 3)
    assert_printed(x.mean(axis=axes), "9.33463814 8.90909116 9.11056338")
    out, _ = course.spatial_batchnorm_forward(x, xp.ones(3), xp.zeros(3), bn_param)
    assert_printed(out.mean(axis=axes), "0 0 0", 1e-14)
    assert_printed(out.std(axis=axes), "0.99999962 0.99999951 0.9999996")
    for gamma, beta in ((xp.asarray([3, 4, 5]), xp.asarray([6, 7, 8])), ([3, 4, 5], [6, 7, 8])):
        out, _ = course.spatial_batchnorm_forward(x, gamma, beta, bn_param)
        assert_printed(out.mean(axis=axes), "6 7 8", 1e-13)
        assert_printed(out.std(axis=axes), "2.99999885 3.99999804 4.99999798")


def test_spatial_batch_normalization_in_evaluation(device):
    """After 50 batches. Texts differ in the sixth decimal, by where and how large their ε is."""
    rng = np.random.RandomState(231)
    bn_param, gamma, beta = {"mode": "train"}, xp.ones(4), xp.zeros(4)
    for _ in range(50):
        x = backend.asarray(2.3 * rng.randn(10, 4, 11, 12) + 13)
        course.spatial_batchnorm_forward(x, gamma, beta, bn_param)
    bn_param["mode"] = "test"
    x = backend.asarray(2.3 * rng.randn(10, 4, 11, 12) + 13)
    out, _ = course.spatial_batchnorm_forward(x, gamma, beta, bn_param)
    assert_printed(out.mean(axis=(0, 2, 3)), "-0.08034398 0.07562874 0.05716365 0.04378379", 1e-7)
    assert_printed(out.std(axis=(0, 2, 3)), "0.96718652 1.02997042 1.02887526 1.0058548", 1e-6)


def test_spatial_group_normalization(device):
    """Given the dictionary of a batch normalization."""
    (x,) = drawn((2, 6, 4, 5))
    x = 4 * x + 10
    assert_printed(x.reshape(4, -1).mean(axis=1), "9.72505327 8.51114185 8.9147544 9.43448077")
    assert_printed(x.reshape(4, -1).std(axis=1), "3.67070958 3.09892597 4.27043622 3.97521327")
    gamma, beta = xp.ones((1, 6, 1, 1)), xp.zeros((1, 6, 1, 1))
    out, _ = course.spatial_groupnorm_forward(x, gamma, beta, 2, {"mode": "train"})
    assert out.shape == x.shape
    assert_printed(out.reshape(4, -1).mean(axis=1), "0 0 0 0", 2e-15)
    assert_printed(out.reshape(4, -1).std(axis=1), "0.99999963 0.99999948 0.99999973 0.99999968")


def test_dropout(device):
    """Of 250,000 numbers. The masks are another generator's: shares and means as near as chance has them, four standard
    deviations of 0.0009 at most, and 10 / p times as many.
    """
    (x,) = drawn((500, 500))
    x = x + 10
    assert abs(float(x.mean()) - 10.0002078785) < 1e-10
    for p, mean, dropped in ((0.25, 10.0141, 0.749784), (0.4, 9.9779, 0.600796), (0.7, 9.9878, 0.30074)):
        out, _ = course.dropout_forward(x, {"mode": "train", "p": p})
        assert abs(float((out == 0).mean()) - dropped) < 0.006
        assert abs(float(out.mean()) - mean) < 0.06 / p
        out, _ = course.dropout_forward(x, {"mode": "test", "p": p})
        assert abs(float(out.mean()) - 10.0002078785) < 1e-10
        assert not bool((out == 0).any())


def test_losses(device):
    rng = np.random.RandomState(231)
    x = backend.asarray(0.001 * rng.randn(50, 10))
    y = backend.asarray(rng.randint(10, size=50))
    assert abs(float(course.svm_loss(x, y)[0]) - 8.9996027491) < 5.1e-11
    assert abs(float(course.softmax_loss(x, y)[0]) - 2.3025458445) < 5.1e-11


# -- update rules --------------------------------------------------------------------------------------------------


def weights():
    return spread((4, 5), -0.4, 0.6), spread((4, 5), -0.6, 0.4)


def test_momentum(device):
    w, dw = weights()
    config = {"learning_rate": 1e-3, "velocity": spread((4, 5), 0.6, 0.9)}
    next_w, _ = course.sgd_momentum(w, dw, config=config)
    next_text = """0.1406     0.20738947 0.27417895 0.34096842 0.40775789 0.47454737 0.54133684 0.60812632 0.67491579
                   0.74170526 0.80849474 0.87528421 0.94207368 1.00886316 1.07565263 1.14244211 1.20923158 1.27602105
                   1.34281053 1.4096"""
    text = """0.5406     0.55475789 0.56891579 0.58307368 0.59723158 0.61138947 0.62554737 0.63970526 0.65386316
              0.66802105 0.68217895 0.69633684 0.71049474 0.72465263 0.73881053 0.75296842 0.76712632 0.78128421
              0.79544211 0.8096"""
    assert_printed(next_w, next_text)
    assert_printed(config["velocity"], text)


def test_rmsprop(device):
    w, dw = weights()
    config = {"learning_rate": 1e-2, "cache": spread((4, 5), 0.6, 0.9)}
    next_w, _ = course.rmsprop(w, dw, config=config)
    next_text = """-0.39223849 -0.34037513 -0.28849239 -0.23659121 -0.18467247 -0.132737   -0.08078555 -0.02881884
                    0.02316247  0.07515774  0.12716641  0.17918792  0.23122175  0.28326742  0.33532447  0.38739248
                    0.43947102  0.49155973  0.54365823  0.59576619"""
    text = """0.5976     0.6126277  0.6277108  0.64284931 0.65804321 0.67329252 0.68859723 0.70395734 0.71937285
              0.73484377 0.75037008 0.7659518  0.78158892 0.79728144 0.81302936 0.82883269 0.84469141 0.86060554
              0.87657507 0.8926"""
    assert_printed(next_w, next_text)
    assert_printed(config["cache"], text)


def test_adam(device):
    w, dw = weights()
    config = {"learning_rate": 1e-2, "m": spread((4, 5), 0.6, 0.9), "v": spread((4, 5), 0.7, 0.5), "t": 5}
    next_w, _ = course.adam(w, dw, config=config)
    next_text = """-0.40094747 -0.34836187 -0.29577703 -0.24319299 -0.19060977 -0.1380274  -0.08544591 -0.03286534
                    0.01971428  0.0722929   0.1248705   0.17744702  0.23002243  0.28259667  0.33516969  0.38774145
                    0.44031188  0.49288093  0.54544852  0.59801459"""
    m_text = """0.48       0.49947368 0.51894737 0.53842105 0.55789474 0.57736842 0.59684211 0.61631579 0.63578947
                0.65526316 0.67473684 0.69421053 0.71368421 0.73315789 0.75263158 0.77210526 0.79157895 0.81105263
                0.83052632 0.85"""
    v_text = """0.69966    0.68908382 0.67851319 0.66794809 0.65738853 0.64683452 0.63628604 0.6257431  0.61520571
                0.60467385 0.59414753 0.58362676 0.57311152 0.56260183 0.55209767 0.54159906 0.53110598 0.52061845
                0.51013645 0.49966"""
    for actual, text in ((next_w, next_text), (config["m"], m_text), (config["v"], v_text)):
        assert_printed(actual, text)
    assert config["t"] == 6


# -- networks of these functions -----------------------------------------------------------------------------------


def test_two_layers(device):
    """Scores, and losses without and with regularization."""
    model = TwoLayerNet(input_dim=5, hidden_dim=50, num_classes=7)
    shapes = {name: value.shape for name, value in model.params.items()}
    for name, first, last in (("W1", -0.7, 0.3), ("b1", -0.1, 0.9), ("W2", -0.3, 0.4), ("b2", -0.9, 0.1)):
        model.params[name] = spread(shapes[name], first, last)
    X = spread((5, 3), -5.5, 4.5).T
    text = """11.53165108 12.2917344  13.05181771 13.81190102 14.57198434 15.33206765 16.09215096
              12.05769098 12.74614105 13.43459113 14.1230412  14.81149128 15.49994135 16.18839143
              12.58373087 13.20054771 13.81736455 14.43418138 15.05099822 15.66781506 16.2846319"""
    assert_printed(model.loss(X), text)
    y = xp.asarray([0, 5, 1])
    assert abs(float(model.loss(X, y)[0]) - 3.4702243556) < 1e-10
    model.reg = 1.0
    assert abs(float(model.loss(X, y)[0]) - 26.5948426952) < 1e-10


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        ({}, (2.30047908977, 7.05211477653)),
        ({"normalization": "batchnorm"}, (2.2611955101340957, 6.9965332201083026)),
        ({"normalization": "batchnorm", "eps": 1e-8}, (2.1630700255489845, 6.992464984987152)),
    ],
    ids=str,
)
def test_three_layers(device, options, texts):
    """The first losses, where the regularization is 0 and 3.14; the weights are drawn one network after the other."""
    rng = np.random.RandomState(231)
    X, y = backend.asarray(rng.randn(2, 15)), backend.asarray(rng.randint(10, size=(2,)))
    for reg, text in zip((0, 3.14), texts, strict=True):
        common = {"input_dim": 15, "reg": reg, "weight_scale": 5e-2, "dtype": np.float64, "rng": rng}
        model = FullyConnectedNet([20, 30], **common, **options)
        assert abs(float(model.loss(X, y)[0]) - text) < 6e-12


def test_a_convolutional_network_of_float32_given_float64(device):
    """The first losses of the notebook, whose numbers are not seeded: those of equal scores."""
    rng = np.random.RandomState(1)
    model = ThreeLayerConvNet(rng=rng)
    X, y = backend.asarray(rng.randn(10, 3, 32, 32)), backend.asarray(rng.randint(10, size=10))
    loss, grads = model.loss(X, y)
    assert abs(float(loss) - 2.302586071243987) < 2e-5
    assert {name: grad.shape for name, grad in grads.items()} == {k: v.shape for k, v in model.params.items()}
    model.reg = 0.5
    assert abs(float(model.loss(X, y)[0]) - 2.5082556356717949) < 2e-3
