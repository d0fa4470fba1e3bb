"""Train, evaluate and predict on data of one's own by the command."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from layers import Affine, Sequential
from tests.support.command_line import xpnet
from training.data import Normalization, read_idx
from training.loop.run_folder import RunFolder
from training.models import Network
from training.models.loading import load_network

QUICK = ("--epochs", 2, "--device", "cpu")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("training.cli.run.draw_figures", lambda *_: {})


def pictures(folder, count=20, size=16, mode="RGB", seed=0):
    """Write pictures of two classes: the left or the right half is brighter."""
    rng = np.random.default_rng(seed)
    for name in ("left", "right"):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 120, (size, size, 3)).astype("uint8")
            half = slice(0, size // 2) if name == "left" else slice(size // 2, size)
            pixels[:, half] += 130
            Image.fromarray(pixels).convert(mode).save(folder / name / f"{number}.png")


@pytest.fixture(params=["RGB", "L"])
def trained(request, tmp_path):
    pictures(tmp_path / "halves", mode=request.param)
    result = xpnet("train", "--data", "halves", *QUICK, "--epochs", 6, "--batch-size", 8, "--out", "run")
    assert (result.code, result.err) == (0, "")
    return RunFolder(tmp_path / "run"), result.out


def test_a_folder_of_pictures_from_training_to_prediction(trained, tmp_path):
    folder, out = trained
    lines = dict(line.split(maxsplit=1) for line in out.splitlines()[:7])
    channels = load_network(folder.model).input_dim[0]
    assert lines["data"] == f"halves: 32 training, 4 validation, 4 test images {channels}x16x16"
    assert lines["classes"] == "2, labels 0 to 1, balanced: left 16, right 16"
    assert lines["input"].startswith("normalized by mean 0.")
    assert out.splitlines()[-1].endswith("%, 4 of 4; " + out.splitlines()[-1].rpartition("4 of 4; ")[2])
    config = load_network(folder.model).config
    assert config["classes"] == ["left", "right"]
    Normalization.from_config(config["normalization"], channels)
    record = json.loads(xpnet("evaluate", "run", "--json").out)  # the run knows its data and its split
    assert (record["part"], record["samples"], record["accuracy"]) == ("test", 4, 1.0)
    pictures(tmp_path / "others", 3, size=40, seed=7)
    record = json.loads(xpnet("evaluate", "run", "--data", "others", "--json").out)
    assert (record["part"], record["samples"], record["accuracy"]) == ("train", 6, 1.0)
    done = xpnet("predict", "others/left/0.png", "others/right/1.png", "--run", "run", "--json")
    assert [json.loads(line)["class"] for line in done.out.splitlines()] == ["left", "right"]


def test_prediction_normalizes_as_training_does(trained, tmp_path):
    folder, _ = trained
    network = load_network(folder.model)
    file = tmp_path / "halves" / "left" / "0.png"
    record = json.loads(xpnet("predict", file, "--run", "run", "--top", 2, "--json").out)
    pixels = np.asarray(Image.open(file), "float32").reshape(1, 16, 16, -1) / np.float32(255)
    known = network.config["normalization"]
    x = (pixels - np.float32(known["mean"])) / np.float32(known["std"])
    scores = network.predict(np.ascontiguousarray(x.transpose(0, 3, 1, 2))).astype("float64")[0]
    expected = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
    assert record["top"][0]["probability"] == pytest.approx(expected.max(), rel=1e-4)


def test_a_table_trains_a_network_of_affine_layers(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3)) * [1, 1000, 1e-3] + [0, 5e4, 0]
    rows = [f"{a!r},{b!r},{c!r},{'high' if (b - 5e4) / 1000 + c * 1000 > 0 else 'low'}" for a, b, c in x.tolist()]
    (tmp_path / "table.csv").write_text("a,b,c,kind\n" + "\n".join(rows))
    result = xpnet("train", "--data", "table.csv", *QUICK, "--epochs", 15, "--batch-size", 10, "--out", "run")
    assert (result.code, result.err) == (0, "")
    assert "model    MultiLayerNet, " in result.out
    assert "data     table: 160 training, 20 validation, 20 test rows 3" in result.out
    assert "note     the target is column 'kind'; features: 'a', 'b', 'c'" in result.out
    assert re.search(r"best: [\d.]+ % of the validation rows right", result.out)
    record = json.loads(xpnet("evaluate", "run", "--json").out)
    assert record["samples"] == 20
    assert record["accuracy"] >= 0.9


def test_the_same_seed_gives_the_same_run_bit_for_bit_for_any_number_of_threads(tmp_path):
    pictures(tmp_path / "halves")

    def run(name, *options):
        assert xpnet("train", "--data", "halves", *QUICK, "--out", name, *options).code == 0
        return (tmp_path / name / "model.safetensors").read_bytes()

    assert run("a", "--threads", 1) == run("b", "--threads", 2) != run("c", "--seed", 1)


def test_parts_of_one_s_own_and_shares(tmp_path):
    for part in ("train", "val", "test"):
        pictures(tmp_path / "parts" / part, 4)
    assert "parts: 8 training, 8 validation, 8 test" in xpnet("train", "--data", "parts", *QUICK).out
    pictures(tmp_path / "whole", 10)
    out = xpnet("train", "--data", "whole", "--val", 0.2, "--test", 0, *QUICK).out
    assert "whole: 16 training, 4 validation images" in out
    assert "test data" not in out
    out = xpnet("train", "--data", "whole", "--best-on", "test", *QUICK).out
    assert "whole: 18 training, 2 test images" in out


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (None, (), "there is no file or folder"),
        ("a,t\n1,x\nnan,y\n", (), "line 3: column 'a': expected a finite number, got 'nan'"),
        ("a,t\n1,x\n2,x\n", (), "expected two classes or more"),
        ("a,t\n1,x\n2,y\n", ("--target", "b"), "there is no column 'b' for the target"),
        (
            "a,t\n" + 20 * "1,x\n2,y\n",
            ("--model", "ConvNet"),
            "ConvNet takes images (C, H, W), got inputs of (1,)",
        ),
        ("a,t\n1,x\n2,y\n", (), "leaves 2 to train and 0 to test; expected at least one of each"),
        ("a,t\n1,x\n2,y\n", ("--val", 0, "--test", 0), "no samples to choose the best epoch by"),
        ("a,t\n1,x\n2,y\n", ("--size", "0x5"), "expected a size such as 64, or 48x64"),
    ],
)
def test_mistakes_are_told_in_one_line_before_a_folder_is_made(tmp_path, text, options, message):
    if text is not None:
        (tmp_path / "t.csv").write_text(text)
    result = xpnet("train", "--data", "t.csv", *options, *QUICK)
    assert result.code == 2
    assert message in result.err
    assert result.err.splitlines()[-1].startswith("Error: ")
    assert not (tmp_path / "runs").exists()


def test_evaluate_says_what_does_not_fit(trained, tmp_path):
    pictures(tmp_path / "others" / "train", 3)
    (tmp_path / "others" / "train" / "left").rename(tmp_path / "others" / "train" / "up")
    result = xpnet("evaluate", "run", "--data", "others")
    assert (result.code, result.err) == (2, "Error: others has the class 'up', which the model does not know\n")
    (tmp_path / "run" / "config.json").write_text('{"settings": {"data": 5}}')
    assert "setting data is 5" in xpnet("evaluate", "run").err


def test_idx_files_of_one_s_own(tmp_path):
    from training.data import write_idx

    pixels = np.random.default_rng(0).integers(0, 255, (40, 12, 12)).astype("uint8")
    write_idx(tmp_path / "train-images-idx3-ubyte", pixels)
    write_idx(tmp_path / "train-labels-idx1-ubyte", (pixels[:, 0, 0] > 127).astype("uint8"))
    assert read_idx(tmp_path / "train-images-idx3-ubyte", 3).shape == (40, 12, 12)
    assert "training, 4 validation, 4 test images 1x12x12" in xpnet("train", "--data", ".", *QUICK).out


def test_a_run_on_data_of_one_s_own_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    from training.loop.trainer import Trainer

    pictures(tmp_path / "halves")
    options = ("--data", "halves", *QUICK, "--epochs", 3, "--batch-size", 8, "--checkpoint-every", "2")
    assert xpnet("train", *options, "--out", "whole").code == 0
    step = Trainer._train_step

    def interrupted(trainer, x, t):
        if trainer.step == 7:
            monkeypatch.setattr(Trainer, "_train_step", step)
            raise KeyboardInterrupt
        step(trainer, x, t)

    monkeypatch.setattr(Trainer, "_train_step", interrupted)
    assert xpnet("train", *options, "--out", "cut").code == 130
    assert xpnet("train", "--resume", "cut").code == 0
    for name in ("model.safetensors", "metrics.jsonl"):
        whole, cut = (tmp_path / run / name for run in ("whole", "cut"))
        if name == "model.safetensors":
            assert whole.read_bytes() == cut.read_bytes()
        else:
            kept = [{key: epoch[key] for key in ("epoch", "loss", "val_loss", "best")} for epoch in
                    (json.loads(line) for line in cut.read_text().splitlines())]  # fmt: skip
            assert kept == [{key: json.loads(line)[key] for key in kept[0]} for line in whole.read_text().splitlines()]


def test_numbers_of_a_table_are_predicted_in_their_own_units(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 2))
    price = 5e5 + 1e5 * (x[:, 0] - 0.5 * x[:, 1])
    rows = [f"{a!r},{b!r},{p!r}" for (a, b), p in zip(x.tolist(), price.tolist(), strict=True)]
    (tmp_path / "houses.csv").write_text("a,b,price\n" + "\n".join(rows))
    result = xpnet("train", "--data", "houses.csv", *QUICK, "--epochs", 20, "--batch-size", 10, "--out", "run")
    assert (result.code, result.err) == (0, "")
    assert "targets  1 a sample, " in result.out
    assert "accuracy" not in result.out
    record = json.loads(xpnet("evaluate", "run", "--json").out)
    assert (record["part"], record["samples"]) == ("test", 30)
    assert record["r2"] > 0.95
    assert 100 < record["mae"] < 2e4
    assert f"on the test data, used this once: r2 {record['r2']:.4g}, mae {record['mae']:.4g}; " in result.out
    assert f"R²        {record['r2']:.4f}" in xpnet("evaluate", "run").out
    # an oracle: the network's own output, brought back by hand
    network = load_network(tmp_path / "run" / "model.safetensors")
    known, target = network.config["normalization"], network.config["target_normalization"]
    scaled = ((x - known["mean"]) / known["std"]).astype("float32")
    predicted = network.predict(scaled)[:, 0].astype("float64") * target["std"][0] + target["mean"][0]
    assert 1 - ((price - predicted) ** 2).sum() / ((price - price.mean()) ** 2).sum() > 0.95


def test_augmentation_by_name(tmp_path):
    pictures(tmp_path / "halves")

    def run(*options):
        result = xpnet(
            "train", "--data", "halves", *QUICK, "--out", tmp_path / str(len(list(tmp_path.iterdir()))), *options
        )
        return result.code, result.out.splitlines()[-2].rpartition("%")[0] if result.code == 0 else result.err

    code, plain = run()
    assert code == 0
    code, changed = run("--augment", "standard")
    assert code == 0
    assert changed != plain
    assert run("--augment", "flip, crop") == (0, changed)
    assert run("--augment", "mixup,cutmix")[0] == 0
    code, message = run("--augment", "mixup", "--loss", "hinge")
    assert (code, "mixup mixes labels, which HingeLoss() does not take" in message) == (2, True)
    code, message = run("--augment", "flip,twist")
    assert code == 2
    assert "twist" in message
    (tmp_path / "t.csv").write_text("a,t\n" + 20 * "1,x\n2,y\n")
    result = xpnet("train", "--data", "t.csv", *QUICK, "--augment", "standard")
    assert (result.code, "augmentation is for images" in result.err) == (2, True)


def test_a_picture_that_has_changed_since_the_checkpoint_is_told_and_moved_ones_are_not(tmp_path):
    pictures(tmp_path / "halves")
    run = ("--out", "run", "--batch-size", 8, "--keep-checkpoints", 3)
    assert xpnet("train", "--data", "halves", *QUICK, *run).code == 0
    first = min((tmp_path / "run" / "checkpoints").iterdir())
    config = tmp_path / "run" / "config.json"
    config.write_text(config.read_text().replace('"ended"', '"ended_before"'))
    (tmp_path / "halves").rename(tmp_path / "moved")
    file = tmp_path / "moved" / "left" / "3.png"
    original = file.read_bytes()
    pixels = np.asarray(Image.open(file)).copy()
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(file)
    result = xpnet("train", "--resume", first, "--data", "moved", "--quiet")
    assert (result.code, result.err.startswith("Error: the checkpoint is of other ")) == (2, True)
    assert result.err.endswith(" data: the inputs have changed\n")
    file.write_bytes(original)
    assert xpnet("train", "--resume", first, "--data", "moved", "--quiet").code == 0


@pytest.mark.parametrize("several", [False, True])
def test_numbers_of_pictures_are_predicted_in_their_units(tmp_path, several):
    """Pictures of one brightness; the targets are 1000 times as much, or that and 2 minus it."""
    (tmp_path / "pics").mkdir()
    levels = np.random.default_rng(0).integers(50, 200, 80).astype("uint8")
    lines = ["file,weight,rest" if several else "file,weight"]
    for number, level in enumerate(levels):
        Image.fromarray(np.full((12, 12), level)).save(tmp_path / "pics" / f"{number}.png")
        lines.append(f"{number}.png,{1000 * int(level)}.5" + (f",{2 - level / 255}" if several else ""))
    (tmp_path / "pics" / "labels.csv").write_text("\n".join(lines))
    options = ("--model", "TwoLayerNet", "--epochs", 15, "--batch-size", 8, "--out", "run")
    result = xpnet("train", "--data", "pics", *QUICK, *options)
    assert (result.code, result.err) == (0, "")
    shown, table, records = (
        xpnet("predict", "pics/1.png", "pics/2.png", "--run", "run", *form).out.splitlines()
        for form in ((), ("--csv",), ("--json",))
    )
    places = ["predicted1", "predicted2"] if several else ["predicted"]
    assert table[0].split(",") == ["image", *places, "warnings", "preparation"]
    for number, line, row, record in zip((1, 2), shown, table[1:], records, strict=True):
        predicted = json.loads(record)["predicted"]
        numbers = predicted if several else [predicted]
        assert numbers[0] == pytest.approx(1000 * int(levels[number]), rel=0.1)
        cells = [f"{each:.6g}" for each in numbers]
        assert line == f"pics/{number}.png: {'   '.join(cells)}"
        assert row.split(",") == [f"pics/{number}.png", *cells, "", "none"]


def labelled(folder, count=80):
    """Write pictures that are red, and brighter on the left, or not: none, one or both."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    lines = ["file,red,left"]
    for number in range(count):
        pixels = rng.integers(0, 60, (16, 16, 3)).astype("uint8")
        red, left = (rng.random(2) < 0.5).tolist()
        pixels[..., 0] += 120 * red
        pixels[:, :8] += 70 * left
        Image.fromarray(pixels).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{red:d},{left:d}")
    (folder / "labels.csv").write_text("\n".join(lines))


def test_several_labels_a_picture_from_training_to_the_report(tmp_path):
    labelled(tmp_path / "pics")
    options = ("--epochs", 12, "--batch-size", 8, "--metrics", "f1", "--out", "run")
    result = xpnet("train", "--data", "pics", *QUICK, *options)
    assert (result.code, result.err) == (0, "")
    assert "labels   2, on average " in result.out
    assert re.search(r"best: [\d.]+ % of the validation labels right, .*this once: [\d.]+ %, f1 [\d.]+; ", result.out)
    record = json.loads(xpnet("evaluate", "run", "--json").out)
    kept = RunFolder("run").load_config()["results"]
    assert (kept["test_accuracy"], kept["f1"]) == (record["accuracy"], record["metrics"]["f1"])
    assert record["accuracy"] > 0.8
    assert [one["label"] for one in record["labels"]] == ["red", "left"]
    lines = xpnet("evaluate", "run").out.splitlines()
    assert lines[3].endswith(" % of the labels")
    assert [line.split()[0] for line in lines[-3:]] == ["label", "red", "left"]

    names = [f"pics/{number}.png" for number in range(6)]
    records = [json.loads(line) for line in xpnet("predict", *names, "--run", "run", "--json").out.splitlines()]
    table = [line.split(",") for line in xpnet("predict", *names, "--run", "run", "--csv").out.splitlines()]
    assert table[0] == ["image", "red", "left", "warnings", "preparation"]
    shown = xpnet("predict", *names, "--run", "run").out.splitlines()
    for record, row, line in zip(records, table[1:], shown, strict=True):
        probabilities = record["probabilities"]
        assert [float(cell) for cell in row[1:3]] == pytest.approx(list(probabilities.values()), rel=1e-5)
        assert record["labels"] == [name for name in probabilities if probabilities[name] > 0.5]
        assert all(f"{name} " in line for name in record["labels"])
        assert ("no label" in line) == (not record["labels"])

    assert xpnet("report", "run").err == ""
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Classes of the test data" in page
    assert ">left<" in page
    refused = xpnet("train", "--data", "pics", *QUICK, "--augment", "mixup")
    assert refused.err == "Error: mixup and cutmix mix classes; the targets of pics are for multi-label\n"
    refused = xpnet("train", "--data", "pics", *QUICK, "--loss", "softmax")
    assert refused.err == "Error: the loss softmax is for classes; pics has labels to predict\n"


def test_rows_with_several_labels_and_a_network_of_one_s_own(tmp_path):
    x = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
    np.savez("rows.npz", x=x, y=(x > 0).astype(int), classes=["a", "b", "c"])
    np.savez("one.npz", x=x, y=(x[:, 0] > 0).astype(int))
    (tmp_path / "new.csv").write_text("p,q,r\n5,-5,5\n-5,-5,-5\n")
    assert xpnet("train", "--data", "rows.npz", *QUICK, "--epochs", 15, "--batch-size", 5, "--out", "run").code == 0
    out = xpnet("predict", "new.csv", "--run", "run").out.splitlines()
    assert [re.findall(r"\b([abc]|no label)\b", line.partition(": ")[2]) for line in out] in (
        [["a", "c"], ["no label"]],
        [["c", "a"], ["no label"]],
    )
    first = json.loads(xpnet("predict", "new.csv", "--run", "run", "--json").out.splitlines()[0])
    assert first["labels"] == ["a", "c"]
    assert xpnet("predict", "new.csv", "--run", "run", "--csv").out.startswith("table,row,a,b,c\n")
    for outputs, data in ((3, "rows.npz"), (1, "one.npz")):
        Network(Sequential(Affine.of(3, outputs)), (3,), loss="sigmoid").save_params("own.safetensors")
        record = json.loads(xpnet("evaluate", "own.safetensors", "--data", data, "--json").out)
        assert (len(record["labels"]), record["samples"]) == (outputs, 60)
