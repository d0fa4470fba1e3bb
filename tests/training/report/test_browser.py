"""The page in a browser, where there is one: it fits a phone, and follows the reader's color scheme."""

import html
import re
import shutil
import subprocess

import numpy as np
import pytest

from training.data import Data, Samples
from training.loop.evaluation import Predictions
from training.loop.run_folder import RunFolder
from training.models import TwoLayerNet
from training.report.findings import Findings
from training.report.markup import document, element
from training.report.page import render
from training.report.style import STYLE

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome", "headless_shell")
BROWSER = next((found for name in BROWSERS if (found := shutil.which(name))), None)

pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"no browser on the path: none of {', '.join(BROWSERS)}")

# The page itself runs no script: this one looks at it from around it.
FRAME = """<!DOCTYPE html><meta name="color-scheme" content="light dark"><iframe id="page" style="width:360px;
height:800px;border:0" srcdoc="{page}"></iframe><p id="seen"></p><script>
window.onload = () => {{
  const page = document.getElementById("page").contentDocument, root = page.documentElement;
  const wide = [...page.body.querySelectorAll("*")].filter(each => !each.closest(".scroll *") &&
    each.getBoundingClientRect().right > root.clientWidth + 0.5).map(each => each.tagName);
  const broken = [...page.images].filter(each => !each.naturalWidth).length;
  document.getElementById("seen").textContent = [root.scrollWidth - root.clientWidth, wide.length, broken,
    page.images.length, page.defaultView.getComputedStyle(page.body).backgroundColor].join("|");
}};</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of a run with what is wide: long names, many classes, numbers with many digits."""
    rng = np.random.default_rng(0)
    names = ["a" * 60, "one two three four five six", *(f"class number {n}" for n in range(18))]
    labels = rng.integers(0, 20, 200)
    probabilities = rng.dirichlet(np.ones(20), 200).astype("float32")
    samples = Samples(rng.integers(0, 255, (200, 3, 40, 30)).astype("uint8"), labels)
    epochs = [
        {"epoch": n, "loss": 1e9 / n, "accuracy": n / 50, "val_loss": 2 / n, "val_accuracy": n / 60, "lr": 1e-7 / n}
        for n in range(1, 41)
    ]
    folder = RunFolder(tmp_path_factory.mktemp("r" * 80))
    settings = {"data": "/" + "long/" * 60, "epochs": 40}
    return render(
        Findings(
            folder,
            {"settings": settings, "device": {"model": "x" * 200}},
            [*epochs[:-1], {**epochs[-1], "best": True}],
            TwoLayerNet(40 * 30 * 3, 5, 20),
            Data("faces", "classification", tuple(names), samples, test=samples),
            "test",
            Predictions(1.0, labels, probabilities.argmax(axis=1), probabilities),
            missing=["No model: " + "y" * 300],
        )
    )


@pytest.mark.parametrize(("scheme", "background"), [("dark", "rgb(21, 24, 28)"), ("light", "rgb(255, 255, 255)")])
def test_nothing_is_wider_than_a_phone_and_colors_follow_the_scheme(page, scheme, background, tmp_path):
    assert seen(page, scheme, tmp_path) == ["0", "0", "0", "29", background]  # 28 mistakes, and the filters


def test_what_is_wider_than_a_phone_is_seen(tmp_path):
    wide = document("wide", STYLE, [element("p", "x", style="width: 500px"), element("img", src="data:image/png,")])
    pixels, *others = seen(wide, "light", tmp_path)
    assert int(pixels) > 100
    assert others == ["1", "1", "1", "rgb(255, 255, 255)"]


def seen(page, scheme, tmp_path):
    """Return of a page of 360 pixels: overflow in pixels and elements, broken and all images, and background color."""
    (tmp_path / "frame.html").write_text(FRAME.format(page=html.escape(page)), encoding="utf-8")
    done = subprocess.run(
        [
            str(BROWSER),
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}",
            "--virtual-time-budget=5000",
            "--dump-dom",
            (tmp_path / "frame.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    found = re.search(r'<p id="seen">([^<]*)</p>', done.stdout)
    assert found, done.stderr[-2000:]
    return found[1].split("|")
