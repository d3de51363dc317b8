"""The report in a real browser: ``make test-report``, not part of ``make test``.

It needs Debian's ``chromium`` (or another one in ``$CHROMIUM``). The runs are made here, unless ``$RUNS`` names some.
The screenshots are for looking at: ``screenshots/`` in the folder where the test runs.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from untrigger.command_line.lightning_cli import UntriggerCLI
from untrigger.commands.report.document import write_report
from untrigger.datamodules.generated import write_generated_data

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("ignore:The number of training batches")]

SCREENSHOTS = Path("screenshots")
LAPTOP, PHONE = (1366, 768), (390, 844)
TRAINER = """
seed_everything: 0
trainer: {accelerator: cpu, max_epochs: 2, num_sanity_val_steps: 0, log_every_n_steps: 2, enable_progress_bar: false,
  enable_model_summary: false}
"""
DATA = "data: {class_path: ImageTextDataModule, init_args: {batch_size: 16, num_workers: 0"
PLAN = "{class_path: PoisonPlan, init_args: {target: star, rate: 0.1, trigger: {class_path: TRIGGER}}}"
VIEW = "{class_path: TransformView, init_args: {transform: {class_path: torchvision.transforms.v2.AutoAugment}}}"


def make_runs(folder: Path) -> list[Path]:
    """Two attacks and a defence of each, as a user would run them."""
    write_generated_data(folder / "shapes", 320, 120)
    data = ["--data.train_shards", str(folder / "shapes" / "train"), "--data.zero_shot", str(folder / "shapes")]
    runs = []
    for trigger in ("BadNet", "Blended"):
        config = folder / f"{trigger}.yaml"
        module = 'model: {class_path: PoisonedCLIP, init_args: {encoder: "small:nano-32", lr: 2.0e-3}}\n'
        config.write_text(f"{TRAINER}{module}{DATA}, poison: {PLAN.replace('TRIGGER', trigger)}}}}}\n")
        poisoned = folder / f"{trigger}-0"
        UntriggerCLI(["fit", "--config", str(config), *data, "--trainer.default_root_dir", str(poisoned)])
        module = (
            'model: {class_path: CleanCLIP, init_args: {encoder: "small:nano-32", lr: 1.0e-3, '
            f"init_from: {poisoned / 'last.ckpt'}}}}}\n"
        )
        views = f"attack: {poisoned / 'poison.json'}, image_view: {VIEW}, text_view: {{class_path: EDA}}"
        config.write_text(f"{TRAINER}{module}{DATA}, {views}}}}}\n")
        cleaned = folder / f"{trigger}-cleanclip-0"
        UntriggerCLI(["fit", "--config", str(config), *data, "--trainer.default_root_dir", str(cleaned)])
        runs += [poisoned, cleaned]
    (runs[1] / "suspects.csv").write_text("key,caption,score,decision\nk1,<b>a star</b>,0.9,forgotten\n")
    shutil.copy(runs[1] / "gallery.png", runs[1] / "suspects.png")
    return runs


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    torch.set_num_threads(1)
    sys.argv = sys.argv[:1]  # LightningCLI reads the arguments of the process
    runs = [Path(run) for run in os.environ.get("RUNS", "").split()] or make_runs(folder)
    write_report(runs, folder / "report.html")
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = os.environ.get("CHROMIUM") or shutil.which("chromium")
    assert executable, "install chromium, or name a browser of its kind in $CHROMIUM"
    from playwright.sync_api import sync_playwright  # not there for the other tests

    with sync_playwright() as playwright:
        # As root, as in a container, Chromium does not start with its sandbox; the page runs no script.
        chromium = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def screenshot(page: Page, name: str) -> None:
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


@pytest.mark.parametrize(
    ("name", "size", "scheme"),
    [("laptop-light", LAPTOP, "light"), ("laptop-dark", LAPTOP, "dark"), ("phone", PHONE, "light")],
)
def test_report_opens_without_a_complaint(
    browser: Browser, report: Path, name: str, size: tuple[int, int], scheme: str
) -> None:
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme="dark" if scheme == "dark" else "light",
        device_scale_factor=2 if size == PHONE else 1,
    )
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.append(request.url) if request.url.startswith("http") else None)
    page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url[:80]}"))
    page.goto(report.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    page.wait_for_load_state("networkidle")
    screenshot(page, name)
    assert complaints == []
    # Wide figures and tables scroll by themselves; the page does not.
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.evaluate("[...document.images].every(each => each.complete && each.naturalWidth > 0)")
    assert page.locator("svg").count() > 0
    # Text on the page and in figures is told apart from what is behind it.
    lightness = page.evaluate(
        "() => [document.body, document.querySelector('figure'), document.querySelector('svg')].map(each => "
        "(getComputedStyle(each).color + ' ' + getComputedStyle(each).backgroundColor).match(/[\\d.]+/g).map(Number))"
    )
    ink = [sum(colour[:3]) / 765 for colour in lightness]
    assert all(value > 0.8 for value in ink) if scheme == "dark" else all(value < 0.3 for value in ink)
    context.close()
