"""A run that goes on from a checkpoint ends with the bits of one that was never stopped."""

import json
import os
import re

import numpy as np
import pytest

import backend
from backend import asnumpy, random
from tests.training.loop.small_runs import Every, numbers, small_data, small_network, small_trainer
from training import SGD, AdamW, BestModel, Callback, Checkpoints, EarlyStopping, Loader, LossScaler, Trainer
from training.files import durable, sections
from training.loop import checkpoint
from training.loop.evaluation import Evaluation
from training.optim import NAMES, by_name
from training.optim.plateau import PlateauSchedule
from training.optim.schedules import CosineSchedule, Warmup

HALF = {"dtype": "float16", "clip_norm": 1.0}


def trainer(kind, **options):
    if kind == "half":
        # A scale that overflows at first: steps are skipped, and it grows again.
        return small_trainer(**HALF, scaler=LossScaler(2.0**24, growth_interval=2), epochs=3, **options)
    return small_trainer(optimizer=AdamW(0.01), schedule=CosineSchedule(0.01, 12), clip_norm=0.5, epochs=3, **options)


def result_of(run):
    arrays = {**run.network.params, **run.network.state}
    return (
        [numbers(result) for result in run.history],
        {name: asnumpy(array).tobytes() for name, array in arrays.items()},
        {name: asnumpy(value).tobytes() for name, value in run.optimizer.state_dict().items()},
        run.random.state,
        run.step,
        run.samples,
        run.position,
    )


@pytest.mark.parametrize("kind", ["single", "half"])
def test_every_step_can_be_gone_on_from(tmp_path, device, kind):
    undisturbed = trainer(kind)
    undisturbed.train()
    saved = []

    def save(run, step):
        saved.append(tmp_path / f"{step}.safetensors")
        checkpoint.save(run, saved[-1])

    saving = trainer(kind, callbacks=[Every(save)])
    saving.train()
    assert result_of(saving) == result_of(undisturbed), "saving changes nothing"
    if kind == "half":
        assert sum(result.skipped_steps for result in undisturbed.history) > 2
    for file in saved if device.kind == "cpu" else saved[1::4]:
        random.seed(77)  # a program that starts anew
        run = trainer(kind, seed=3)
        run.network.params.flat[...] = 0
        run.resume(file)
        assert run.step == int(file.stem)
        run.train()
        assert result_of(run) == result_of(undisturbed)


def test_a_plateau_goes_on_with_what_it_has_seen(tmp_path):
    def run(schedule=True):
        plateau = Warmup(PlateauSchedule(0.01, factor=0.5, patience=0, threshold=0.3), 3) if schedule else None
        return small_trainer(schedule=plateau, epochs=6)

    undisturbed = run()
    undisturbed.train()
    rates = [result.lr for result in undisturbed.history]
    assert len(set(rates)) > 2  # the rate went down more than once
    saving = run()
    saving.callbacks.append(Every(lambda made, step: checkpoint.save(made, tmp_path / f"{step}.safetensors")))
    saving.train()
    for step in range(1, saving.step + 1, 3):
        made = run()
        made.resume(tmp_path / f"{step}.safetensors")
        made.train()
        assert result_of(made) == result_of(undisturbed)
    for made, other in ((run(False), tmp_path / "5.safetensors"), (run(), tmp_path / "plain.safetensors")):
        if made.update.schedule is None:
            checkpoint.save(made, tmp_path / "plain.safetensors")
        before = result_of(made)
        with pytest.raises(ValueError, match="state of a schedule"):
            made.resume(other)
        assert result_of(made) == before


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["single", "half"])
def test_graph_steps_go_on_as_eager_ones(tmp_path, kind):
    """Twelve steps of 8 images: from the third on each is a graph, and again after the resume."""
    with backend.use("cuda"):
        options = {"batch": 8}
        undisturbed = trainer(kind, graph=False, **options)
        undisturbed.train()
        run = trainer(kind, callbacks=[Every(lambda run, step: run.network.params and interrupt(step))], **options)

        def interrupt(step):
            if step == 9:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run.train()
        checkpoint.save(run, tmp_path / "c.safetensors")
        again = trainer(kind, **options)
        again.resume(tmp_path / "c.safetensors")
        again.train()
        assert again._graphs.shapes
        assert result_of(again) == result_of(undisturbed)
        run.resume(tmp_path / "c.safetensors")  # a trainer that has graphs already
        run.callbacks = run.callbacks[:1]
        run.train()
        assert result_of(run) == result_of(undisturbed)


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_goes_on(tmp_path, name):
    undisturbed, run, again = (small_trainer(optimizer=by_name(name, None, None)) for _ in range(3))
    undisturbed.train()
    steps = run.steps(1)
    for _ in range(3):
        next(steps)
    checkpoint.save(run, tmp_path / "c.safetensors")
    steps.close()
    again.resume(tmp_path / "c.safetensors")
    again.train()
    assert result_of(again) == result_of(undisturbed)


def test_generators_of_the_program_and_of_numpy_go_on(tmp_path):
    class Noise(Callback):
        """Draws as the book's layers do, and as a program may."""

        def on_step_end(self, trainer, step):
            trainer.network.params["b1"] += np.random.standard_normal(8).astype("float32")
            trainer.network.params["b2"] += asnumpy(random.uniform(3))

    def made(callbacks=()):
        np.random.seed(5)
        return small_trainer(callbacks=[Noise(), *callbacks])

    undisturbed = made()
    undisturbed.train()
    made([Checkpoints(tmp_path, every=3, keep=9)]).train()
    again = made()
    np.random.seed(1)
    again.resume(tmp_path / checkpoint.file_name(3))
    again.train()
    assert result_of(again) == result_of(undisturbed)


def test_callbacks_go_on_with_their_state(tmp_path):
    class Lowest(Callback):
        """The lowest loss so far: infinite at first."""

        def __init__(self):
            self.loss = np.inf

        def on_epoch_end(self, trainer, result):
            self.loss = min(self.loss, result.loss)

        def state_dict(self):
            return {"loss": self.loss, "pair": (1, 2)}

        def load_state_dict(self, saved):
            assert saved["pair"] == [1, 2]
            self.loss = saved["loss"]

    first, best = [Lowest(), Lowest()], BestModel()
    small_trainer(callbacks=[*first, best, Checkpoints(tmp_path, every=1, keep=99)]).train()
    for step in range(1, 9):
        lowest, again = [Lowest(), Lowest()], BestModel()
        run = small_trainer(callbacks=[*lowest, again])
        run.resume(tmp_path / checkpoint.file_name(step))
        if step < 4:
            assert lowest[1].loss == np.inf
            assert again.result is None
        run.train()
        assert [each.loss for each in lowest] == [each.loss for each in first]
        assert numbers(again.result) == numbers(best.result)
        assert {name: a.tobytes() for name, a in again.arrays().items()} == {
            name: a.tobytes() for name, a in best.arrays().items()
        }
        again.restore(run.network)
    bare = small_trainer()
    with pytest.raises(ValueError, match="callbacks that this training lacks: Lowest, Lowest2, BestModel"):
        bare.resume(tmp_path)
    assert bare.step == 0


def test_a_run_that_stopped_early_is_known_to_have_stopped(tmp_path):
    callbacks = [Every(lambda run, step: run.stop() if step == 5 else None), Checkpoints(tmp_path, every=5)]
    small_trainer(epochs=9, callbacks=callbacks).train()
    again = small_trainer(epochs=9)
    again.resume(tmp_path)
    assert (len(again.train()), again.step) == (2, 8)
    assert len(again.train()) == 9, "called again, it goes on"


# -- when checkpoints are written, and how many are kept ---------------------------------------------------------------


def steps_of(folder):
    return [int(file.stem.removeprefix("step-")) for file in checkpoint.list_files(folder)]


@pytest.mark.parametrize(
    ("every", "keep", "kept"),
    [
        (3, 9, [3, 4, 6, 8]),  # after 4 steps an epoch is the best so far
        ("3", 2, [6, 8]),
        ("1e", 9, [4, 8]),
        ("2e", 9, [4, 8]),
        ("1000", 1, [8]),
        ("1000m", 3, [4, 8]),
    ],
)
def test_intervals(tmp_path, every, keep, kept):
    written = []
    original = checkpoint.save
    checkpoints = Checkpoints(tmp_path / "new" / "folder", every=every, keep=keep, config={"lr": 0.5})
    run = small_trainer(callbacks=[checkpoints])
    try:
        checkpoint.save = lambda *arguments: (written.append(run.step), original(*arguments))
        run.train()
    finally:
        checkpoint.save = original
    assert steps_of(tmp_path / "new" / "folder") == kept
    assert len(written) == len(set(written)), "nothing is written twice"
    assert checkpoints.file.name == checkpoint.file_name(8)
    assert sections.read_sections(checkpoints.file)["config"] == {"lr": 0.5}


def test_minutes_are_counted_from_the_last_one(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("training.loop.checkpoints.time.monotonic", lambda: now[0])

    def tick(run, step):
        now[0] += 40.0

    small_trainer(callbacks=[Every(tick), Checkpoints(tmp_path, every="1.5m", keep=9)]).train()
    assert steps_of(tmp_path) == [3, 4, 7, 8]  # at 4 one is written of the best epoch so far


def test_the_checkpoint_of_the_best_epoch_stays(tmp_path):
    def spoil(run, step):
        if step == 9:  # from the third epoch on all is worse than in the second
            run.network.params.flat[...] *= 10

    run = small_trainer(callbacks=[Every(spoil), Checkpoints(tmp_path, keep=1)], epochs=5)
    run.train()
    assert run.best.epoch == 2
    assert steps_of(tmp_path) == [8, 20]
    again = small_trainer(callbacks=[Checkpoints(tmp_path, keep=2)], epochs=4)
    again.resume(tmp_path / checkpoint.file_name(8))
    assert again.train()[1].rank == run.best.rank
    assert steps_of(tmp_path) == sorted({12, 16, 4 * again.best.epoch})


def test_what_a_kill_has_left_goes_when_the_run_goes_on(tmp_path):
    small_trainer(callbacks=[Checkpoints(tmp_path, keep=9)], epochs=3).train()
    run = small_trainer(callbacks=[Checkpoints(tmp_path, keep=1)], epochs=3)
    run.resume(tmp_path)
    run.train()
    assert steps_of(tmp_path) == sorted({12, 4 * run.best.epoch})


@pytest.mark.parametrize("text", ["0", "0m", "0.0m", "-5", "1e3", "5 m", "m", "", "1.5", "1.5e", "nan", "5s", "1" * 20])
def test_other_intervals_are_refused(tmp_path, text):
    with pytest.raises(
        ValueError, match=re.escape("every must be steps as in 200, minutes as in 5m or epochs as in 1e, got")
    ):
        Checkpoints(tmp_path, every=text)


def test_ctrl_c_saves_and_other_errors_do_not(tmp_path):
    def interrupt(error):
        def at(run, step):
            if step == 5:
                raise error

        return at

    for error, found in ((KeyboardInterrupt, [4, 5]), (ZeroDivisionError, [4])):
        folder = tmp_path / error.__name__
        run = small_trainer(callbacks=[Every(interrupt(error)), Checkpoints(folder, every="9e")])
        with pytest.raises(error):
            run.train()
        assert steps_of(folder) == found


def test_parameters_that_are_not_finite_do_not_replace_good_ones(tmp_path):
    run = small_trainer(callbacks=[Checkpoints(tmp_path, every="9e", keep=1)])
    run.callbacks[-1].save(run)
    run.step = 1
    run.network.params["b1"][0] = np.nan
    run.callbacks[-1].save(run)
    assert steps_of(tmp_path) == [0]


def test_later_checkpoints_go_when_a_run_went_on_from_an_earlier_one(tmp_path):
    small_trainer(callbacks=[Checkpoints(tmp_path, every=2, keep=9)]).train()
    run = small_trainer(callbacks=[Checkpoints(tmp_path, every=3, keep=9)])
    run.resume(tmp_path / checkpoint.file_name(2))
    steps = run.steps(1, 2)
    next(steps)
    assert steps_of(tmp_path) == [2, 3]


# -- files that are damaged, or of another training --------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    small_trainer(callbacks=[Checkpoints(tmp_path, every=3, keep=9)]).train()
    return tmp_path


def refused(folder, error=ValueError, **options):
    """Return the message of the error, after which the trainer is as it was."""
    run = small_trainer(**options)
    before = result_of(run)
    with pytest.raises(error) as raised:
        run.resume(folder)
    assert result_of(run) == before
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_one_bit_of_a_file_that_differs_is_found(saved):
    newest = checkpoint.list_files(saved)[-1]
    whole = newest.read_bytes()
    for place in np.random.default_rng(0).integers(8, len(whole), 60):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(place) % 8
        newest.write_bytes(damaged)
        message = refused(saved)
        assert str(newest) in message
        assert message.endswith(f"; the checkpoint before it is {saved / checkpoint.file_name(6)}")
    run = small_trainer()
    run.resume(saved / checkpoint.file_name(6))  # when said
    assert run.step == 6


@pytest.mark.parametrize("length", [0, 7, 8, 100, -1])
def test_a_truncated_file_is_found(saved, length):
    newest = checkpoint.list_files(saved)[-1]
    newest.write_bytes(newest.read_bytes()[:length])
    assert str(newest) in refused(saved)


def test_files_of_other_kinds_are_named(saved):
    small_network().save_params(saved / "model.safetensors")
    assert "it was not written as a checkpoint of xpnet" in refused(saved / "model.safetensors")
    sections.write_sections(saved / "other.safetensors", {"run": {"step": 1}})
    assert "lacks the samples of section run" in refused(saved / "other.safetensors")
    content = (saved / "other.safetensors").read_bytes()
    (saved / "later.safetensors").write_bytes(content.replace(b'\\"format\\": 1', b'\\"format\\": 2'))
    assert "its format is 2, expected 1" in refused(saved / "later.safetensors")
    assert "there is no checkpoint " in refused(saved / "nothing", FileNotFoundError)
    (saved / "empty").mkdir()
    assert "there is no checkpoint in" in refused(saved / "empty", FileNotFoundError)
    os.symlink(saved / "other.safetensors", saved / "link.safetensors")
    assert "link" in refused(saved / "link.safetensors", OSError)


def test_a_checkpoint_of_another_training_is_refused(saved):
    assert "seed is 3 in it, 4 here" in refused(saved, seed=4)
    assert "batch_size is 16 in it, 8 here" in refused(saved, batch=8)
    assert "a training with Adam, expected SGD" in refused(saved, optimizer=SGD())
    assert "unexpected parameters: 'beta1', 'gamma1'" in refused(saved, normalized=False)
    assert "no loss scale; this one has one" in refused(saved, scaler=LossScaler())
    assert "dtype is 'float32' in it, 'float16' here" in refused(saved, dtype="float16")
    x, t = small_data(50, 0)
    for inputs, labels, what in ((np.where(x == x.max(), 0, x), t, "inputs"), (x, (t + 1) % 3, "labels")):
        loaders = Loader(inputs, labels, 16, seed=3), Loader(*small_data(20, 1), 8, shuffle=False)
        run = Trainer(small_network(), *loaders, SGD())
        with pytest.raises(ValueError, match=f"the checkpoint is of other train data: the {what} have changed"):
            run.resume(saved)


def test_what_cannot_be_saved_is_named(tmp_path):
    class Odd(Callback):
        def state_dict(self):
            return {"seen": {1, 2}}

    run = small_trainer(callbacks=[Odd()])
    with pytest.raises(TypeError, match="callback Odd/seen is set: expected an array, or what JSON can hold"):
        checkpoint.save(run, tmp_path / "c.safetensors")

    class Descent:
        lr = 0.1

        def update(self, params, grads):
            pass

    with pytest.raises(TypeError, match="the optimizer Descent cannot be saved: it has no state_dict"):
        checkpoint.save(small_trainer(optimizer=Descent()), tmp_path / "c.safetensors")
    assert os.listdir(tmp_path) == []


def test_a_file_is_safetensors_with_a_header_of_json(saved):
    from safetensors import safe_open

    with safe_open(checkpoint.find(saved), "np") as opened:
        header = json.loads(opened.metadata()[sections.KEY])
        assert opened.get_tensor("params/W1").shape == (6, 8)
        assert opened.get_tensor("optimizer/m.W1").shape == (6, 8)
    assert header["values"]["run"]["step"] == 8
    assert header["values"]["random"]["trainer"]["position"] > 0


def test_numbers_that_json_lacks_come_back(tmp_path):
    values = {"a": [np.inf, -np.inf, 1.5, None, True], "b": {"c": 0.1}, "n": 1 << 63, "s": 'ä"'}
    arrays = {"x": np.zeros((0, 3), "float16"), "y": np.float32(1.5), "t": np.array(True)}
    sections.write_sections(tmp_path / "f.safetensors", {"one": {**values, **arrays}, "none": {}})
    found = sections.read_sections(tmp_path / "f.safetensors")
    assert found["none"] == {}
    assert {name: found["one"][name] for name in values} == values
    for name, array in arrays.items():
        assert found["one"][name].dtype == array.dtype
        assert found["one"][name].shape == array.shape
    assert np.isnan(sections._decoded(sections._encoded(np.nan, "")))


def test_a_checkpoint_has_the_same_bytes_each_time(tmp_path):
    for name in ("a", "b"):
        run = small_trainer()
        checkpoint.save(run, tmp_path / f"{name}.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_full_disk_keeps_the_checkpoint_before(saved, monkeypatch):
    def full(handle, content):
        os.write(handle, bytes(content)[:100])
        raise OSError(28, "No space left on device")

    before = {file.name: file.read_bytes() for file in saved.iterdir()}
    run = small_trainer(callbacks=[Checkpoints(saved, every=1, keep=1)], epochs=3)
    run.resume(saved)
    monkeypatch.setattr(durable, "_write", full)
    with pytest.raises(OSError, match="No space left"):
        run.train()
    assert {file.name: file.read_bytes() for file in saved.iterdir()} == before


def test_early_stopping_counts_over_the_interruption(tmp_path):
    def made(callbacks=()):
        run = small_trainer(epochs=9, callbacks=[EarlyStopping(2), *callbacks])
        script = iter([0.5, 0.75, 0.5, 0.5, 1.0])
        run.evaluate = lambda loader: Evaluation(1.0, next(script))
        return run

    made([Checkpoints(tmp_path, every="1e", keep=9)]).train()
    again = made()
    for _ in range(3):
        again.evaluate(None)
    again.resume(tmp_path / checkpoint.file_name(12))
    assert [result.epoch for result in again.train()] == [1, 2, 3, 4]


HOSTILE = {
    "run": [("step", -1), ("batches", 99), ("totals", np.zeros(2)), ("history", np.frombuffer(b"[1]", "uint8")),
            ("history", np.array([255], "uint8")), ("position", []), ("optimizer", "SGD")],
    "random": [("trainer", {"seed": 1}), ("program", {}), ("numpy", [1]), ("key", np.zeros(3, "uint32"))],
    "optimizer": [("m.W1", np.zeros((2, 2), "float32")), ("t", -3), ("lr", "fast"), ("extra", 1)],
    "params": [("W1", np.zeros((6, 8), "float64")), ("W1", np.zeros((8, 6), "float32")), ("W9", np.zeros(1))],
    "data": [("train", {}), ("test", {"samples": 20})],
}  # fmt: skip


@pytest.mark.parametrize(("section", "number"), [(s, i) for s, found in HOSTILE.items() for i in range(len(found))])
def test_wrong_values_with_a_right_checksum_are_refused(saved, section, number):
    name, value = HOSTILE[section][number]
    found = sections.read_sections(checkpoint.find(saved))
    found[section][name] = value
    sections.write_sections(saved / "hostile.safetensors", found)
    refused(saved / "hostile.safetensors")
