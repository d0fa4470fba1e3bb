"""Arrays in .npz and .npy files, CIFAR's binary files and IDX files."""

import numpy as np
import pytest

import training.data
from training.data import DataError, Loader, write_idx
from training.data.inputs import MappedInputs, is_mapped

LABELS = np.arange(12) % 3


def images(count=12, shape=(3, 4, 5), dtype="uint8"):
    return (np.arange(count * int(np.prod(shape))) % 251).reshape(count, *shape).astype(dtype)


@pytest.mark.parametrize(
    "names",
    [("x", "y"), ("images", "labels"), ("x_train", "y_train"), ("train_images", "train_labels"), ("X", "target")],
)
def test_npz_by_the_names_that_people_use(tmp_path, names):
    np.savez(tmp_path / "a.npz", **dict(zip(names, (images(), LABELS), strict=True)))
    data = training.data.open(tmp_path / "a.npz")
    assert (data.name, data.kind, data.classes, data.shape) == ("a", "classification", ("0", "1", "2"), (3, 4, 5))
    np.testing.assert_array_equal(data.train[:][0], images())


def test_npz_with_all_parts_and_labels_in_a_column(tmp_path):
    parts = {f"{part}_{what}": array for part in ("train", "val", "test") for what, array in
             (("images", images(shape=(4, 5))), ("labels", LABELS[:, None]))}  # fmt: skip
    np.savez_compressed(tmp_path / "a.npz", **parts)
    data = training.data.open(tmp_path / "a.npz")
    assert list(data.parts) == ["train", "val", "test"]
    assert data.shape == (1, 4, 5)


def test_channels_may_come_last(tmp_path):
    np.savez(tmp_path / "a.npz", x=images(shape=(4, 5, 3)), y=LABELS)
    data = training.data.open(tmp_path / "a.npz")
    assert data.shape == (3, 4, 5)
    np.testing.assert_array_equal(data.train.inputs[2], images(shape=(4, 5, 3))[2].transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("targets", "kind", "classes"),
    [
        (np.array([7, -1] * 6), "classification", ("-1", "7")),
        (np.array(["no", "yes"] * 6), "classification", ("no", "yes")),
        (np.eye(3)[LABELS], "classification", ("0", "1", "2")),
        (np.array([True, False] * 6), "classification", ("False", "True")),
        (np.linspace(0, 1, 12), "regression", ()),
        (np.linspace(0, 1, 24).reshape(12, 2), "regression", ()),
    ],
)
def test_kinds_of_targets(tmp_path, targets, kind, classes):
    np.save(tmp_path / "x.npy", images(shape=(4,), dtype="float32"))
    np.save(tmp_path / "y.npy", targets)
    data = training.data.open(tmp_path)
    assert (data.kind, data.classes) == (kind, classes)
    assert data.train.targets.dtype == ("int64" if classes else "float32")
    assert data.outputs == (len(classes) or (1 if targets.ndim == 1 else 2))
    if classes and targets.ndim == 1:
        assert [classes[t] for t in data.train.targets] == list(map(str, targets))


def test_classes_without_samples_are_named(tmp_path):
    arrays = {"x": images(), "y": LABELS, "x_test": images(4), "y_test": np.zeros(4, int)}
    np.savez(tmp_path / "a.npz", **arrays, classes=np.array(list("abcdefg")))
    said = training.data.open(tmp_path / "a.npz").describe()["classes"]
    assert said.startswith("7, labels 0 to 6, balanced: a 4, b 4, c 4, d 0, e 0, f 0, g 0; ")
    assert said.endswith("; the training part has no d, e, f and 1 more; the test part has no b, c, d and 3 more")
    np.savez(tmp_path / "b.npz", x=images(), y=np.zeros((12, 2), int))
    said = training.data.open(tmp_path / "b.npz", target_kind="multi-label").describe()["labels"]
    assert said == "2, on average 0 a sample: 0 0, 1 0; the training part has no 0, 1"


def test_the_kind_can_be_said(tmp_path):
    np.savez(tmp_path / "a.npz", x=images(), y=LABELS)
    assert training.data.open(tmp_path / "a.npz", target_kind="regression").train.targets.dtype == "float32"
    np.savez(tmp_path / "many.npz", x=images(400, (2,)), y=np.arange(400) * 1000)  # prices, say
    data = training.data.open(tmp_path / "many.npz")
    assert (data.kind, data.train.targets.dtype, data.train.targets[7]) == ("regression", "float32", 7000)
    with pytest.raises(DataError, match="400 different targets in 400 samples are too many classes"):
        training.data.open(tmp_path / "many.npz", target_kind="classification")
    np.savez(tmp_path / "b.npz", x=images(), y=LABELS.astype(float))
    assert training.data.open(tmp_path / "b.npz").kind == "regression"
    assert training.data.open(tmp_path / "b.npz", target_kind="classification").classes == ("0", "1", "2")


@pytest.mark.parametrize("opened", ["folder", "file"])
@pytest.mark.parametrize(("order", "dtype"), [("C", "uint8"), ("F", "uint8"), ("C", "int16"), ("C", ">f4")])
def test_npy_files_stay_on_the_disk_and_batches_are_the_same(tmp_path, opened, order, dtype):
    np.save(tmp_path / "x_train.npy", np.asarray(images(dtype=dtype), order=order))
    np.save(tmp_path / "y_train.npy", LABELS)
    data = training.data.open(tmp_path if opened == "folder" else tmp_path / "x_train.npy", val=0.25, seed=3)
    loader = data.loader("train", 4, seed=1)
    assert isinstance(loader._inputs.inputs, MappedInputs)
    assert data.dtype == ("uint8" if dtype == "uint8" else "float32")
    held = Loader(np.array(data.train.inputs[:]), data.train.targets, 4, seed=1, normalization=data.normalization)
    for (x, t), (y, u) in zip(loader, held, strict=True):
        np.testing.assert_array_equal(x, y)
        np.testing.assert_array_equal(t, u)


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
@pytest.mark.parametrize("part", ["train", "val"])
def test_what_is_not_finite_on_the_disk_is_named_before_a_training(tmp_path, part, bad, monkeypatch):
    monkeypatch.setattr("training.data.collection.BLOCK_BYTES", 1000)  # 4 samples
    for name in ("train", "val"):
        x = images(dtype="float32")
        x[9, 1, 2, 3] = bad if name == part else 0
        np.save(tmp_path / f"x_{name}.npy", x)
        np.save(tmp_path / f"y_{name}.npy", LABELS)
    place = r"\[1, 2, 3\]" if images().shape[1] in (1, 3) else r"\[3, 1, 2\]"
    with pytest.raises(DataError, match=rf"sample 9 of the {part} part has {bad} at {place}"):
        training.data.open(tmp_path)


def test_a_mapped_array_given_to_a_loader_is_not_copied(tmp_path):
    np.save(tmp_path / "x.npy", images())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert is_mapped(mapped[2:].transpose(0, 2, 3, 1))
    assert not is_mapped(np.array(mapped))
    loader = Loader(mapped, LABELS, 5)
    assert isinstance(loader._inputs, MappedInputs)
    np.testing.assert_array_equal(loader.batch(0, 1)[0], Loader(images(), LABELS, 5).batch(0, 1)[0])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": images()}, "expected arrays x and y, or x_train, y_train, .*, got x"),
        ({"x": images(), "y": LABELS[:5]}, r"as many train targets as inputs, 12, got \[5\]"),
        ({"x": images(), "y": LABELS * 0}, r"expected two classes or more, got \[0\] alone"),
        ({"x": images(), "y": np.where(LABELS, LABELS, np.nan)}, "target of sample 0 of the train part is nan"),
        ({"x": images(dtype="complex64"), "y": LABELS}, "expected inputs of numbers, got complex64"),
        ({"x": np.where(images() == 7, np.nan, images()), "y": LABELS}, r"sample 0 of the train .* nan at \[0, 1, 2\]"),
        (
            {"x": images(), "y": LABELS, "x_test": images(), "y_test": LABELS + 1},
            "class 3 of sample 2 of the test part",
        ),
        ({"x": images(), "y": np.full(12, 0.5)}, r"expected targets that differ, got 0\.5 for all 12 samples"),
        ({"x": images(), "y": LABELS, "x_test": images(shape=(3, 4, 4)), "y_test": LABELS}, r"\(N, 3, 4, 5\), got"),
        ({"x": images(0), "y": LABELS[:0]}, "expected train inputs"),
        (
            {"x": images(400, (2,)), "y": np.arange(400).astype(str)},
            "400 different targets in 400 samples .*--target-kind",
        ),
        ({"x": images(), "y": LABELS, "classes": np.array(["a", "b"])}, "label 2 of sample 2 .*expected 0 to 1"),
    ],
)
def test_mistakes_in_arrays_are_told(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message):
        training.data.open(tmp_path / "a.npz")


def test_pickles_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.array([{}]), allow_pickle=True)
    np.save(tmp_path / "y.npy", LABELS)
    with pytest.raises(DataError, match=r"x\.npy: expected an array of numbers or texts"):
        training.data.open(tmp_path)
    (tmp_path / "x.npy").write_bytes(b"")
    with pytest.raises(DataError, match=r"x\.npy: expected an array of numbers or texts"):
        training.data.open(tmp_path)
    with pytest.raises(ValueError, match="channels must be 1 or 3, got 2"):
        training.data.open(tmp_path, channels=2)


def records(count, labels, label_bytes=1):
    rows = (np.arange(count * 3072) % 253).astype("uint8").reshape(count, 3072)
    heads = np.zeros((count, label_bytes), "uint8")
    heads[:, -1] = labels
    return np.concatenate([heads, rows], axis=1), rows.reshape(-1, 3, 32, 32)


def test_cifar10(tmp_path):
    for number in (1, 2):
        records(4, number)[0].tofile(tmp_path / f"data_batch_{number}.bin")
    records(3, [0, 9, 1])[0].tofile(tmp_path / "test_batch.bin")
    (tmp_path / "batches.meta.txt").write_text("\n".join("abcdefghij") + "\n\n")
    data = training.data.open(tmp_path)
    assert (data.shape, data.classes[9], len(data.train), len(data.test)) == ((3, 32, 32), "j", 8, 3)
    assert data.train.targets.tolist() == [1] * 4 + [2] * 4
    np.testing.assert_array_equal(data.test.inputs, records(3, 0)[1])
    (tmp_path / "data_batch_1.bin").write_bytes(b"\0" * 3080)
    with pytest.raises(DataError, match=r"data_batch_1\.bin: expected records of 3,073 bytes, got 3,080 bytes, 7 too"):
        training.data.open(tmp_path)
    records(3, [0, 10, 1])[0].tofile(tmp_path / "data_batch_1.bin")
    with pytest.raises(DataError, match="label 10 of record 1 is out of range: expected 0 to 9"):
        training.data.open(tmp_path)


def test_cifar100_has_its_fine_labels(tmp_path):
    records(4, [99, 0, 5, 7], 2)[0].tofile(tmp_path / "train.bin")
    records(2, 1, 2)[0].tofile(tmp_path / "test.bin")
    data = training.data.open(tmp_path)
    assert (len(data.classes), data.train.targets.tolist()) == (100, [99, 0, 5, 7])


def test_idx_files(tmp_path):
    pixels = images(shape=(4, 5))
    for part in ("train", "t10k"):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte.gz", pixels)
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte", LABELS.astype("uint8"))
    data = training.data.open(tmp_path)
    assert (data.shape, data.classes, len(data.test)) == ((1, 4, 5), ("0", "1", "2"), 12)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="expected test-labels-idx1-ubyte"):
        training.data.open(tmp_path)
