"""Put mistakes into C kernels, one at a time: the tests of the operation have to find each.

    python tests/support/mistakes_in_c.py [NAME…]

tries the mistakes named, or all, and exits with the names of those that were not found. A mistake is compiled for
float32 and the best level of this processor, and used in the place of the library's own function.
"""

import ctypes
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

ROOT = Path(__file__).parents[2]


class Mistake(NamedTuple):
    """``new`` in place of the first ``old`` of a file of kernels, and the file of tests that has to find it."""

    file: str
    old: str
    new: str
    tests: str


MISTAKES = {
    "a tail left out": Mistake("masking.c", "(; i < last; ++i)", "(; i + 1 < last; ++i)", "masking"),
    "NaN lost": Mistake("activations.c", "rectified(value)", "choose(value > all(0), value, all(0))", "activations"),
    "NaN lost behind a depthwise convolution": Mistake(
        "depthwise.c", "rectified(total[v])", "choose(total[v] > all(0), total[v], all(0))", "depthwise"
    ),
    "zero is positive": Mistake("activations.c", "value > all(0), own);", "value >= all(0), own);", "activations"),
    "slope of the other side": Mistake(
        "activations.c", "choose(above, value, value * factor)", "choose(above, value * factor, value)", "activations"
    ),
    "last maximum wins": Mistake("max_pooling.c", "~(value <= best)", "~(value < best)", "pooling"),
    "NaN loses": Mistake("max_pooling.c", "~(value <= best)", "(value > best)", "pooling"),
    "NaN is beaten": Mistake("max_pooling.c", " & (best == best)", "", "pooling"),
    "taps counted by height": Mistake("max_pooling.c", "a * g.kernel_width + b", "a * g.kernel_height + b", "pooling"),
    "gradient set, not added": Mistake(
        "max_pooling.c", "mask), sum + gradient, sum)", "mask), gradient, sum)", "max_pool_backward"
    ),
    "Nesterov without looking ahead": Mistake(
        "optimizers.c", "step - v_ * (A)momentum;)", "step + v_ * (A)momentum;)", "optimizers"
    ),
    "one rate for both averages": Mistake("optimizers.c", "* (A)rate2", "* (A)rate1", "optimizers"),
    "no weight decay": Mistake("optimizers.c", "step + p * (A)decay_rate", "step", "optimizers"),
    "fused, not rounded twice": Mistake("optimizers.c", "p * (A)decay + g;", "fma(p, all((A)decay), g);", "optimizers"),
    "a score's infinity counts": Mistake(
        "softmax.c", "choose(target != all(0), target * shifted, all(0))", "target * shifted", "softmax"
    ),
    "two lanes lost": Mistake(
        "softmax.c", "half > 0; half /= 2)\n        UNROLL for (int i = 0; i < half; ++i) value[i] +=",
        "half > 1; half /= 2)\n        UNROLL for (int i = 0; i < half; ++i) value[i] +=", "softmax",
    ),
    "one not scaled": Mistake("softmax.c", "labels[row]) - 1) * scale", "labels[row]) * scale - 1)", "softmax"),
    "no largest score": Mistake("softmax.c", "shifted = tile[k] - most;", "shifted = tile[k];", "softmax"),
    "filters not turned": Mistake("convolution.c", "backward ? taps - 1 - tap : tap", "tap", "convolution"),
    "bias of the first group": Mistake("convolution.c", "bias + group * own + v + k", "bias + v + k", "convolution"),
    "padding of the row before": Mistake(
        "convolution.c", "__builtin_memset(to + right * c->in, 0, (width - right) * c->in * sizeof(T));", "",
        "convolution",
    ),
    "a chunk's image": Mistake("convolution.c", "its_image * c->image_numbers", "0 * c->image_numbers", "convolution"),
    "a position's taps": Mistake(
        "convolution.c", "all.rows, met_by(columns, column + i)", "all.rows, met_by(columns, column)", "convolution"
    ),
    "measured before it is computed": Mistake(
        "convolution.c", "first < last ? first / block_lines : end;", "end;", "convolution_measured"
    ),
    "measured by another's blocks": Mistake(
        "convolution.c", "measure(measured, done, computed)", "measure(measured, 0, computed)", "convolution_measured"
    ),
    "padding of the weight's gradient": Mistake(
        "convolution_weight.c", "least(g->pad_left, columns)", "least(0 * g->pad_left, columns)", "convolution_weight"
    ),
    "bias gradient's last windows": Mistake(
        "convolution_weight.c", "for (; i < columns; ++i) total[0] +=", "for (; i + 1 < columns; ++i) total[0] +=",
        "convolution_weight",
    ),
    "no bias": Mistake("gemm.c", "if (p->bias) value += load(p->bias + i);", "", "gemm_native"),
    "the first panel packed for all": Mistake(
        "gemm.c", "run * WIDTH, together, b", "run * WIDTH, together > 0, b", "gemm_native"
    ),
    "sums of the last run alone": Mistake("gemm.c", "p.is_first = k == 0,", "p.is_first = 1,", "gemm"),
    "a quarter of the squares": Mistake("sums.c", "(sum[0] + sum[1]) + (sum[2] + sum[3])", "sum[0] + sum[1]", "sums"),
    "gradient without the mask": Mistake("affine.c", "choose(load_mask(positive + at), load(dy + at), all(0))",
                                         "load(dy + at)", "affine"),
    "variance by the sum": Mistake("layer_norm.c", "deviation * deviation;", "deviation;", "layer_norm"),
    "rows not cleared": Mistake(
        "embedding.c", "(last - first) * size * sizeof(A)", "size * sizeof(A)", "embedding"
    ),
    "a row of the range before": Mistake("embedding.c", "row < first ||", "row < first - 1 ||", "embedding"),
    "a row's last number left out": Mistake("embedding.c", "(; i < size; ++i)", "(; i + 1 < size; ++i)", "embedding"),
    "cells of the step after": Mistake(
        "lstm.c", "(dcell * load_up_to(before + at, own))", "(dcell * load_up_to(dc + at, own))", "recurrent_steps"
    ),
    "the gradient from the step after": Mistake(
        "lstm.c", "(dh ? load_up_to(dh + at, own) : all(0))", "all(0)", "recurrent_steps"
    ),
    "the reset gate left out": Mistake(
        "gru.c", "vec_tanh(a[2] + r * b[2])", "vec_tanh(a[2] + b[2])", "recurrent_steps"
    ),
    "epsilon left out": Mistake("layer_norm.c", " + (A)epsilon", "", "layer_norm"),
    "kept and dropped": Mistake("masking.c", "kept[i] ? values[i] : 0", "kept[i] ? 0 : values[i]", "masking"),
    "sums of keys before not scaled": Mistake(
        "attention.c", "load_sums(run->total + i) * keep + sum", "load_sums(run->total + i) + sum", "attention"
    ),
    "one later key is seen": Mistake(
        "attention.c", ".seen = {causal ? UP_TO : ALL, shift}", ".seen = {causal ? UP_TO : ALL, shift + 1}",
        "attention_native",
    ),
    "an earlier query's gradient": Mistake(
        "attention.c", "seeing = {causal ? FROM : ALL, -shift}", "seeing = {causal ? FROM : ALL, -shift - 1}",
        "attention_native",
    ),
    "slopes without their mean": Mistake("attention.c", "(load_sums(slope) - mean)", "load_sums(slope)", "attention"),
    "nine rounds of Philox": Mistake("dropout.c", "round < 10", "round < 9", "dropout"),
    "a word in another's byte": Mistake("dropout.c", "& 0x10000ull", "& 0x1000000ull", "dropout"),
}  # fmt: skip


def compiled(mistake: Mistake, folder: Path) -> Any:
    """Return the library of a file with its mistake.

    Raises:
        ValueError: the source has no such text.
    """
    from kernels.core import build_native, native

    source = (build_native.KERNELS / mistake.file).read_text(encoding="utf-8")
    if mistake.old not in source:
        raise ValueError(f"{mistake.file} has no text {mistake.old!r}: put the mistake in another place")
    path = folder / mistake.file
    path.write_text(source.replace(mistake.old, mistake.new, 1), encoding="utf-8")
    target = build_native.this_target()
    assert target is not None
    levels = tuple(level for level in target.levels if level.name == native.library().level)
    with mock.patch.object(build_native, "TYPES", {"float": ("float",)}):
        build_native.build(
            target._replace(levels=levels), folder / "mistake.lib", flags=["-Wno-error"], files=[path]
        )  # of what is unused
    return ctypes.CDLL(str(folder / "mistake.lib"))


def pytest_configure(config: Any) -> None:
    """Use the functions of ``XPNET_MISTAKE`` in the place of the library's (this module is also a pytest plugin)."""
    from kernels.core import native

    mistake = MISTAKES[os.environ["XPNET_MISTAKE"]]
    with tempfile.TemporaryDirectory() as folder:
        handle = compiled(mistake, Path(folder))
    find = native.Function._find

    def found(self: Any, dtype: Any, name: str, parameters: Any) -> Any:
        if self.file != mistake.file or dtype.name != "float32":
            return find(self, dtype, name, parameters)
        whole = native.library()
        with mock.patch.object(native, "library", return_value=whole._replace(handle=handle)):
            return find(self, dtype, name, parameters)

    native.Function._find = found  # type: ignore[method-assign]


def is_found(name: str) -> bool:
    """Return whether the tests fail with a mistake; that they could run is known from exit code 1, or a crash."""
    environment = {**os.environ, "XPNET_MISTAKE": name, "XPNET_REQUIRE_NATIVE": "1", "PYTHONPATH": str(ROOT)}
    options = ["-q", "-x", "-p", "no:cacheprovider", "-p", "tests.support.mistakes_in_c"]
    path = f"tests/kernels/test_{MISTAKES[name].tests}.py"
    command = [sys.executable, "-m", "pytest", *options, path]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300)
    if done.returncode not in (0, 1) and done.returncode > 0:
        raise RuntimeError(f"{name}: pytest ended with {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.returncode != 0


def main() -> None:
    """Try the mistakes named, or all; exit with those that were not found."""
    from kernels.core import native

    if native.library().reason:
        sys.exit(native.library().reason)
    names = sys.argv[1:] or list(MISTAKES)
    missed = []
    for name in names:
        found = is_found(name)
        print(f"{'found ' if found else 'MISSED'} {MISTAKES[name].file}: {name}", flush=True)
        missed += [] if found else [name]
    sys.exit(f"not found: {', '.join(missed)}" if missed else 0)


if __name__ == "__main__":
    main()
