"""``xpnet report``: what the page has, of runs of every kind, and what it says where something is missing."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

import training.data
from tests.support.command_line import QUICK, xpnet
from tests.support.html_pages import Page
from training.loop.evaluation import predict
from training.models.loading import load_network

HOSTILE = "<script>alert(1)<script>&amp;\"'\u202e"


def report(run, *arguments):
    """Write the report of a run; return the page and what was said about what is missing."""
    result = xpnet("report", run, "--device", "cpu", *arguments)
    assert (result.code, result.out) == (0, f"report {run}/report.html\n")
    page = Page((run / "report.html").read_text(encoding="utf-8"))
    page.check_self_contained()
    return page, result.err


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("training.cli.run.draw_figures", lambda *_: {})


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.cli.run.draw_figures", lambda *_: {})
        folder = tmp_path_factory.mktemp("digits") / "run"
        assert xpnet("train", *QUICK, "--epochs", 2, "--device", "cpu", "--out", folder).code == 0
    return folder


@pytest.fixture
def run(digits, tmp_path):
    shutil.copytree(digits, tmp_path / "run")
    return tmp_path / "run"


def hostile_pictures(folder, size=8):
    """Write pictures of two classes whose names are markup; the classes cannot be told apart."""
    rng = np.random.default_rng(0)
    for name in (HOSTILE, "b"):
        (folder / name).mkdir(parents=True)
        for number in range(20):
            Image.fromarray(rng.integers(0, 255, (size, size, 3)).astype("uint8")).save(folder / name / f"{number}.png")


def test_a_finished_run_has_every_section(run):
    page, missing = report(run)
    assert missing == ""
    headings = [text for tag, text in page.texts if tag == "h2"]
    assert headings == [
        "Learning curves",
        "Confusion matrix of the test data",
        "Classes of the test data",
        "Worst mistakes of the test data",
        "Filters of the first layer",
        "Layers",
        "Configuration",
        "Environment",
    ]
    assert page.tags.count("svg") == 3
    assert page.tags.count("img") == 28 + 1  # the mistakes and the filters
    record = json.loads(xpnet("evaluate", run, "--json").out)
    cells = [text for tag, text in page.texts if tag in ("td", "th", "dd")]
    assert f"{100 * record['accuracy']:.2f} %" in cells
    for one in record["classes"]:
        where = [i for i, text in enumerate(cells) if text == one["class"]]
        assert any(cells[i + 1 : i + 3] == [f"{one['samples']:,}", f"{one['correct']:,}"] for i in where)


def test_the_confusion_matrix_and_scores_of_each_class_are_those_of_loops(run):
    page, _ = report(run)
    data = training.data.load("mnist10k")
    samples = training.data.Loader(data.test_images, data.test_labels, 1000, shuffle=False)
    found = predict(load_network(run / "model.safetensors"), samples)
    rows = [text for tag, text in page.texts if tag == "td"]
    for label in range(10):
        right = sum(p == t == label for p, t in zip(found.predicted, found.labels, strict=True))
        there, decided = sum(found.labels == label), sum(found.predicted == label)
        shown = [f"{100 * part / whole:.1f} %" for part, whole in [(right, decided), (right, there)]]
        shown.append(f"{200 * right / (there + decided):.1f} %")
        place = next(i for i in range(len(rows)) if rows[i : i + 3] == [str(label), f"{there:,}", f"{right:,}"])
        assert rows[place + 3 : place + 6] == shown


def test_names_of_classes_and_folders_are_texts(tmp_path):
    hostile_pictures(tmp_path / "da<b>ta")
    run = tmp_path / "<img src=x>"
    result = xpnet("train", "--data", tmp_path / "da<b>ta", *QUICK, "--epochs", 1, "--device", "cpu", "--out", run)
    assert result.code == 0, result.err
    page, missing = report(run)
    assert missing == ""
    name = HOSTILE.replace("\u202e", "\\u202e")
    assert name in page.text
    assert any(name in str(value) for key, value in page.attributes if key == "title")
    assert "da<b>ta" in page.text
    assert "<img src=x>" in page.text


def test_a_run_whose_data_have_moved_says_so_and_takes_them_by_path(tmp_path):
    hostile_pictures(tmp_path / "data")
    run = tmp_path / "run"
    assert xpnet("train", "--data", "data", *QUICK, "--epochs", 1, "--device", "cpu", "--out", run).code == 0
    (tmp_path / "data").rename(tmp_path / "moved")
    page, missing = report(run)
    assert missing.startswith("No data: ")
    assert str(tmp_path / "data") in missing
    assert missing.strip() in page.text
    assert "Learning curves" in page.text
    assert "Confusion matrix of the test data" not in page.text
    kept = json.loads((run / "config.json").read_text())["results"]  # what the run found out itself
    assert "test accuracy, when the run ended" in page.text
    assert f"{100 * kept['test_accuracy']:.2f} %" in page.text
    page, missing = report(run, "--data", tmp_path / "moved")
    assert missing == ""
    assert "Confusion matrix of the test data" in page.text
    assert "when the run ended" not in page.text


def test_no_data_set_is_downloaded(run, monkeypatch):
    monkeypatch.setattr("training.data.download.fetch", lambda *_, **__: pytest.fail("a download"), raising=False)
    config = json.loads((run / "config.json").read_text())
    config["settings"]["dataset"] = "fashion-mnist"
    (run / "config.json").write_text(json.dumps(config))
    monkeypatch.setenv("XPNET_DATA_DIR", str(run))
    _, missing = report(run)
    assert missing.startswith("No data: ")


def test_a_run_that_was_interrupted_is_measured_on_the_validation_part(run):
    config = json.loads((run / "config.json").read_text())
    del config["ended"]
    (run / "config.json").write_text(json.dumps(config))
    page, _ = report(run)
    assert "Confusion matrix of the validation data" in page.text
    assert "interrupted or under way" in page.text


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "model.safetensors"])
@pytest.mark.parametrize("damage", ["gone", "garbage", "other"])
def test_what_is_missing_or_damaged_is_said_and_the_rest_is_there(run, name, damage):
    file = run / name
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(b"\x00\xff{" * 50 if damage == "garbage" else b'{"epoch": {"x": []}, "settings": 3}\n')
    page, missing = report(run)
    if damage == "gone" or name == "model.safetensors":
        assert missing.startswith({"c": "No configuration", "m": "No model", "me": "No epochs"}.get(name[:2], {
            "c": "No configuration", "m": "No model" }[name[0]]))  # fmt: skip
    for line in missing.splitlines():
        assert line in page.text
    assert ("Layers" in page.text) == (name != "model.safetensors")
    if name != "metrics.jsonl":
        assert "Learning curves" in page.text


def test_numbers_of_any_kind_in_the_metrics_are_drawn_or_left_out(run):
    records = [
        {"epoch": 1, "loss": None, "accuracy": "high", "val_loss": 1e308, "val_accuracy": 0.5, "lr": 10**400},
        {"epoch": "two", "loss": [1], "val_loss": -1e308, "best": True, "metrics": {"f1": 0.5, "<x>": 1, "y": {}}},
        {"epoch": 3, "loss": 0.5, "accuracy": 0.5, "val_loss": 0.25, "val_accuracy": 1, "metrics": [1]},
        {},
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    page, _ = report(run)
    assert "nan" not in " ".join(str(value) for name, value in page.attributes if name in ("points", "cx", "cy"))


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_network_that_predicts_numbers(tmp_path, epochs):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 2))
    with open("table.csv", "w", newline="") as file:
        csv.writer(file).writerows([("a", "b", "target"), *((a, b, 3 * a - b + 0.01) for a, b in x.tolist())])
    run, device = tmp_path / "run", ("--device", "cpu")
    result = xpnet("train", "--data", "table.csv", "--epochs", epochs, "--metrics", "mae", *device, "--out", run)
    assert result.code == 0, result.err
    page, missing = report(run)
    assert missing == ""
    assert "Predictions of the test data" in page.text
    assert "Largest errors" in page.text
    network = load_network(run / "model.safetensors")
    data = training.data.open("table.csv").with_parts(0.1, 0.1, 0)
    inputs = (data.test.inputs - np.float32(data.normalization.mean)) / np.float32(data.normalization.std)
    (mean,), (std,) = data.target_normalization.mean, data.target_normalization.std
    predicted = network.predict(inputs.astype("float32"))[:, 0].astype("float64") * std + mean
    errors = np.abs(predicted - data.test.targets)
    facts = [text for tag, text in page.texts if tag in ("dt", "dd")]
    mae = float(facts[facts.index("test mean absolute error") + 1])
    assert mae == pytest.approx(errors.mean(), rel=1e-3)
    squares = ((predicted - data.test.targets) ** 2).sum() / ((data.test.targets - data.test.targets.mean()) ** 2).sum()
    assert float(facts[facts.index("test R²") + 1]) == pytest.approx(1 - squares, rel=1e-3, abs=1e-3)
    rows = [text for tag, text in page.texts if tag == "td"]
    assert rows[0] == str(int(errors.argmax()))
    assert float(rows[3]) == pytest.approx(errors.max(), rel=1e-3)
    assert "validation mae" in page.text


def test_many_classes_are_a_picture_and_a_table(tmp_path):
    rng = np.random.default_rng(0)
    np.savez("many.npz", x=rng.integers(0, 255, (400, 6, 6)).astype("uint8"), y=np.arange(400) % 40)
    run = tmp_path / "run"
    result = xpnet("train", "--data", "many.npz", *QUICK, "--epochs", 1, "--device", "cpu", "--out", run)
    assert result.code == 0, result.err
    page, missing = report(run)
    assert missing == ""
    assert any("a row for each class" in str(value) for name, value in page.attributes if name == "alt")


def test_a_mistake_of_the_user_is_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    for arguments, said in [
        (["nowhere"], "there is no folder nowhere"),
        (["empty"], "empty has no config.json, metrics.jsonl or model: it is not the folder of a run"),
        ([], "no run with a model in runs/: train one first"),
    ]:
        result = xpnet("report", *arguments, "--device", "cpu")
        assert (result.code, result.out, result.err) == (2, "", f"Error: {said}\n")


def test_the_page_is_written_where_the_user_says(run, tmp_path):
    result = xpnet("report", run, "--device", "cpu", "--out", "page.html")
    assert (result.code, result.out) == (0, "report page.html\n")
    assert not (run / "report.html").exists()
    Page((tmp_path / "page.html").read_text(encoding="utf-8"))


def test_a_profile_is_drawn_under_its_roof(run):
    rows = [
        {"layer": "Affine1", "phase": "forward", "seconds": 0.001, "flops": 10**7, "bytes": 10**5},
        {"layer": "<b>", "phase": "backward", "seconds": 0.003, "flops": 3 * 10**6, "bytes": 10**6},
        {"layer": "loader", "phase": "data", "seconds": 0.0},
        {"layer": ["x"], "phase": {}, "seconds": None, "flops": "1", "bytes": 0},
        7,
    ]
    profile = {"model": "M", "batch": 5, "roof": {"flops": 1e11, "bandwidth": 1e10, "source": "<i>"}, "rows": rows}
    (run / "profile.json").write_text(json.dumps(profile))
    page, missing = report(run)
    assert missing == ""
    cells = [text for tag, text in page.texts if tag == "td"]
    place = cells.index("Affine1")
    # 10 GFLOP/s at 100 FLOP a byte, under a roof of 100 GFLOP/s; 1 GFLOP/s at 3, where 10 GB/s allow 30.
    assert cells[place : place + 14] == [
        *("Affine1", "forward", "1", "25.0 %", "10", "100", "10 %"),
        *("<b>", "backward", "3", "75.0 %", "1", "3", "3 %"),
    ]
    assert "The roof: 100 GFLOP/s and 10 GB/s, <i>." in page.text
    assert ("title", "<b>, backward") in page.texts
    for other in ({"rows": []}, {"rows": 3}, {"roof": [], "rows": [{}]}, {"roof": {"flops": "x"}, "rows": rows}, []):
        (run / "profile.json").write_text(json.dumps(other))
        report(run)


def test_links_in_the_folder_are_not_followed(run, tmp_path):
    (tmp_path / "other.txt").write_text("kept")
    (run / "report.html").symlink_to(tmp_path / "other.txt")
    (run / "model.safetensors").rename(tmp_path / "model.safetensors")
    (run / "model.safetensors").symlink_to(tmp_path / "model.safetensors")
    _, missing = report(run)
    assert missing.startswith("No model: ")
    assert (tmp_path / "other.txt").read_text() == "kept"
    assert not (run / "report.html").is_symlink()
