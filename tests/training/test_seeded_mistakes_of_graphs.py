"""The tests of graphs find mistakes: each is put into the source of the code that captures and replays a step."""

import __future__

import functools
import inspect
import textwrap
from collections.abc import Callable
from typing import NamedTuple

import pytest

import backend
from backend import graph_numbers, graphs
from kernels import dropout
from tests.backend import test_graphs as of_graphs
from tests.training import test_step_graphs as of_steps
from training.loop import step_graphs
from training.optim.loss_scaling import LossScaler
from training.optim.optimizer import Optimizer
from training.optim.update import Update

pytestmark = pytest.mark.gpu


class Mistake(NamedTuple):
    """``new`` in place of the first ``old`` in a function, and a test that must fail."""

    function: Callable
    old: str
    new: str
    test: Callable
    """Called with those of the fixtures ``cp``, ``monkeypatch`` and ``caplog`` that it names."""


def optimizer():
    of_steps.test_every_optimizer_gives_the_bits_of_eager_steps("adam")


def setting(change):
    return functools.partial(of_steps.test_settings_that_change_between_steps, change)


def refused(kind):
    return functools.partial(of_steps.test_a_layer_that_cannot_be_captured_is_named_and_trained_eagerly, kind)


_numbers, _graph, _recorder = graph_numbers.GraphNumbers, graphs.Graph, graphs.Recorder
_steps, _captured = step_graphs.StepGraphs, step_graphs._Captured
_IF_CHANGED = "settings != self._made_with or not all(map(operator.is_, parts, self._made_of))"

MISTAKES = {
    # what changes from step to step
    "a stale constant": Mistake(graph_numbers.numbers, "graph.add(source, dtype)", "source()", optimizer),
    "numbers are not uploaded": Mistake(_graph._run, "self._numbers.upload(stream)", "pass", optimizer),
    "numbers are not computed anew": Mistake(_graph.launch, "self._numbers.compute()", "pass", optimizer),
    "numbers of the capture computed twice": Mistake(
        _graph.launch, "if self._is_new:", "if False:", of_graphs.test_numbers_of_the_host_change_between_replays
    ),
    "numbers lie over each other": Mistake(
        _numbers.add, "self._used = ", "_ = ", of_graphs.test_numbers_of_the_host_change_between_replays
    ),
    "numbers out of their turn": Mistake(
        _numbers.compute, "in self._actions", "in self._actions[::-1]",
        of_graphs.test_sources_and_actions_keep_their_order,
    ),
    "numbers uploaded in another stream": Mistake(
        _numbers.upload, "runtime.memcpyHostToDevice, stream.ptr", "runtime.memcpyHostToDevice, 0",
        of_graphs.test_a_pinned_buffer_is_written_again_only_when_its_copy_is_done,
    ),
    "a pinned buffer written during its copy": Mistake(
        _numbers.upload, "if not copied.done:", "if False:",
        of_graphs.test_a_pinned_buffer_is_written_again_only_when_its_copy_is_done,
    ),
    "host counters not advanced": Mistake(graph_numbers.repeat, "graph.repeat(action)", "pass", optimizer),
    "optimizer's correction frozen": Mistake(
        Optimizer._update_array, "numbers(lambda: list(named().values()), acc_dtype(params.dtype))",
        "list(named().values())", optimizer,
    ),
    "learning rate frozen": Mistake(Update.step, "repeat(self._set_rate)", "self._set_rate()", optimizer),
    "position of Philox frozen": Mistake(
        dropout._place, 'numbers(place, "uint32")', "place()", optimizer
    ),
    "loss scale frozen": Mistake(
        LossScaler.adjust, "loss_scale.adjust(self.control, self.growth_interval)",
        "from backend import graph_numbers as g; g._recording.get() or "
        "loss_scale.adjust(self.control, self.growth_interval)",
        lambda: of_steps.test_loss_scaling_gives_the_bits_of_eager_steps("adam", None),
    ),
    # memory and streams
    "a pool that is not private": Mistake(
        _recorder.capture, "self._cupy.cuda.using_allocator(self.pool.malloc)", "contextlib.nullcontext()",
        of_graphs.test_a_replay_overwrites_nothing_of_others,
    ),
    "inputs of a graph are let go": Mistake(
        _graph.__init__, "self._work = work", "self._work = None", of_graphs.test_a_graph_keeps_what_it_needs
    ),
    "memory given back in a capture": Mistake(
        _recorder.capture, "self._chunks.freed != freed", "False",
        of_graphs.test_memory_that_is_given_back_within_a_capture_is_exhausted_memory,
    ),
    "garbage collected in a capture": Mistake(
        _recorder.capture, "gc.disable()", "pass", of_graphs.test_nothing_is_collected_while_a_stream_is_captured
    ),
    "a replay in no order": Mistake(
        _graph.launch, "with recorder.ordered():", "if True:",
        of_graphs.test_the_current_stream_and_the_recorders_wait_for_each_other,
    ),
    "graphs kept where memory is exhausted": Mistake(
        _steps.run, "self.forget()", "pass",
        lambda: of_steps.test_exhausted_memory_drops_the_graphs_and_later_steps_go_on(10),
    ),
    # the batch
    "a fixed buffer is not refilled": Mistake(_captured.replay, "buffer.fill(array)", "pass", optimizer),
    "labels are not refilled": Mistake(
        _captured.replay, "zip(self._batch, batch, strict=True)", "zip(self._batch[:1], batch)", optimizer
    ),
    "a graph used for another batch's shape": Mistake(
        _steps._run, "key = x.shape, x.strides, x.dtype.char, t.shape, t.dtype.char",
        "key = (x.shape[1:], x.dtype.char)", optimizer,
    ),
    # the comparison with an eager step
    "a first replay is not compared": Mistake(
        _steps._capture, "if not _equal(array, eager[name])", "if False", refused(of_steps.CountsHidden)
    ),
    "arrays not put back before the first replay": Mistake(
        _steps._capture, "_restore(arrays, before)", "pass", optimizer
    ),
    "counters not put back before the first replay": Mistake(_steps._capture, "    put_back()", "    pass", optimizer),
    "counters of a refused graph not put forward": Mistake(
        _steps._capture, "put_forward()\n", "pass\n", refused(of_steps.Draws)
    ),
    # what a graph was made with
    "a profile by graph": Mistake(
        _steps.run, " or profiling.is_listened_to()", "", of_steps.test_a_profile_runs_eagerly
    ),
    "restored state ignored": Mistake(
        _steps._parts, "optimizer.state, ", "", of_steps.test_state_that_is_restored_between_steps
    ),
    "a network that moved ignored": Mistake(
        _steps._run, _IF_CHANGED, "settings != self._made_with",
        of_steps.test_a_network_that_moves_to_the_cpu_and_back,
    ),
    "settings ignored": Mistake(
        _steps._run, "settings != self._made_with or ", "",
        setting(lambda made: setattr(made.network.layers[1], "momentum", 0.5)),
    ),
    "TF32 ignored": Mistake(
        _steps._settings, "tf32.is_allowed()", "False", of_steps.test_tf32_that_is_allowed_between_steps
    ),
    "a number of an own layer ignored": Mistake(
        _steps._settings, "isinstance(value, _PLAIN)", "False",
        of_steps.test_an_own_layer_whose_number_changes_between_steps,
    ),
}  # fmt: skip


def seeded(function, old, new):
    """Return the code of a function with ``new`` in place of the first ``old``."""
    source = textwrap.dedent(inspect.getsource(function))
    source = source[source.index("def ") :]  # without decorators
    assert old in source, f"{function.__qualname__} has no {old!r} any more"
    compiled = compile(source.replace(old, new, 1), "a mistake", "exec", __future__.annotations.compiler_flag)
    names = dict(function.__globals__)
    exec(compiled, names)
    return names[function.__name__].__code__


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_found(name, monkeypatch, caplog):
    mistake = MISTAKES[name]
    with backend.use("cuda"):
        import cupy

        fixtures = {"cp": cupy, "monkeypatch": monkeypatch, "caplog": caplog}
        wanted = [fixtures[each] for each in inspect.signature(mistake.test).parameters if each in fixtures]
        function = inspect.unwrap(mistake.function)
        monkeypatch.setattr(function, "__code__", seeded(function, mistake.old, mistake.new))
        try:
            with pytest.raises((AssertionError, ArithmeticError, pytest.fail.Exception)):
                mistake.test(*wanted)
        finally:
            cupy.cuda.get_current_stream().synchronize()
