"""Keys, captions, class names and names of folders that are made to be more than text, through every command."""

from __future__ import annotations

import csv
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import WriteShard, encode_picture

from untrigger import cli
from untrigger.datamodules.excluded import excluded_keys
from untrigger.datamodules.shards import ShardSet
from untrigger.datamodules.shards.encoded import check_picture
from untrigger.datamodules.shards.writer import Labelled, write_zero_shot_set

pytestmark = pytest.mark.filterwarnings("ignore:The number of training batches")

TEXTS = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    '=HYPERLINK("http://x","y")',
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    " =1",
    "\t=1",
    "\r=1",
    "'=1",
    '\'"=1"',
    r"\input{/etc/passwd}\write18{id} 100% & $x_#^~",
    "\x1b[2J\x1b[31mred\x07\x01\x7f",
    "\x9b31m\x85",
    "\u202egnp\u2066\u2028\u2029\u200b\ufeff",
    "[red]markup[/] [link=http://x]y[/link]",
    "---\nlicense: mit\n---\n# heading",
    "| a | [b](javascript:alert(1)) ![c](http://x) `d`",
    "!!python/object/apply:os.system ['id']",
    "{{ 7*7 }}{% raw %}",
    "k" * 200,
    "../../escape",
    'a,b;c"d\r\ne',
    "\udce9\udc9b\udcff",
]
CLASSES = ['=HYPERLINK("http://x") <img src=x onerror=alert(1)>', r"\input{x} & 100% \x1b[31m[red]"]
KEYS = [text + end for text in TEXTS for end in ("", "0", "1")]
PLACE = "=<script>[red]"
CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2066-\u2069]")
"""What steers a terminal or turns a line; line ends and tabs stand in every file."""


class Page(HTMLParser):
    """What a page would run or fetch."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.active: list[str] = []
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "iframe", "object", "link", "base", "form"):
            self.active.append(tag)
        for name, value in attrs:
            if name.startswith("on") or (name in ("src", "href") and not (value or "").startswith(("data:image", "#"))):
                self.active.append(f"{tag} {name}={value}")


def config(path: Path, model: str, **arguments: Any) -> str:
    trainer: dict[str, Any] = {
        "accelerator": "cpu",
        "num_sanity_val_steps": 0,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
        "max_epochs": 1,
    }
    if model == "UBT":
        trainer |= {"max_epochs": -1, "reload_dataloaders_every_n_epochs": 1}
    data = {"batch_size": 8, "eval_batch_size": 16, "num_workers": 0}
    content = {
        "seed_everything": 0,
        "trainer": trainer,
        "model": {"class_path": model, "init_args": {"encoder": "small:nano-32", **arguments}},
        "data": {"class_path": "ImageTextDataModule", "init_args": data},
    }
    path.write_text(yaml.safe_dump(content))
    return str(path)


def picture(label: int, draws: np.random.Generator) -> bytes:
    colour = np.array([(220, 60, 40), (40, 80, 200)][label])
    return encode_picture((colour + draws.normal(0, 12, (32, 32, 3))).clip(0, 255).astype(np.uint8))


@pytest.fixture
def folder(tmp_path: Path, write_shard: WriteShard, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shards, beside a zero-shot set, in a folder whose name is hostile too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["untrigger"])
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    draws = np.random.default_rng(0)
    pairs = [
        (key, {"png": picture(n % 2, draws), "txt": f"a {CLASSES[n % 2]} {key}".encode("utf-8", "replace")})
        for n, key in enumerate(KEYS)
    ]
    data = Path(write_shard(Path(PLACE, "train", "00000.tar"), pairs)).parent
    tested = [Labelled(check_picture(picture(n % 2, draws)), n % 2) for n in range(16)]
    write_zero_shot_set(Path(PLACE), tested, CLASSES, ["a {c}"])
    return data


def assert_only_text() -> dict[Path, str]:
    """See that nothing in the working folder is more than text, and return what there is."""
    left = {
        path: path.read_text("utf-8", "surrogateescape")
        for path in Path().rglob("*")
        if path.suffix in (".csv", ".html", ".json", ".md", ".tex", ".yaml")
    }
    assert not {path: found for path, text in left.items() if (found := CONTROLS.findall(text))}
    for path in (path for path in left if path.suffix == ".html"):
        assert not Page(left[path]).active
    for path in (path for path in left if path.suffix == ".csv"):
        cells = [cell for row in csv.reader(left[path].splitlines()) for cell in row]
        formulas = [cell for cell in cells if cell.lstrip().startswith(("=", "+", "-", "@"))]
        assert not [cell for cell in formulas if not re.fullmatch(r"-?[\d.]+(e-?\d+)?", cell)]
    return left


def test_hostile_text_is_only_text_in_whatever_the_commands_leave(
    folder: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    shown = ["--data.train_shards", str(folder), "--data.zero_shot", PLACE]
    ubt = config(
        Path("ubt.yaml"),
        "UBT",
        rounds=1,
        sampled_pairs=64,
        min_word_share=0.1,
        evidence=[{"class_path": "DetailMargin"}],
        probe={
            "candidates": 8,
            "epochs": 1,
            "steps": 4,
            "lr": 1e-2,
            "significance": 1.0,
            "min_moved": 0.0,
            "min_fragility": -1.0,
        },
        repair={"epochs": 1, "steps": 1, "batch_size": 4},
    )
    poison = {"trigger": "BadNet", "target": CLASSES[0], "count": "9"}
    attack = [word for name, value in poison.items() for word in (f"--data.poison.{name}", value)]
    planted = ["--config", config(Path("planted.yaml"), "PoisonedCLIP"), "--trainer.default_root_dir", "planted"]
    cli.run(["fit", *planted, *shown, "--data.poison", "PoisonPlan", *attack])
    unlearn = ["--config", ubt, "--model.init_from", "planted/last.ckpt", "--trainer.default_root_dir", "unlearnt"]
    cli.run(["fit", *unlearn, *shown, "--data.poison", "planted/poison.json"])
    cli.run(["clean", "planted/last.ckpt", str(folder), "cleaned", "--ubt", ubt])
    cli.run(["report", "planted", "unlearnt", "--out", "report.html"])
    printed = "\n".join([*capfd.readouterr(), *caplog.messages])

    assert not CONTROLS.findall(printed)
    assert "target '=HYPERLINK(" in printed
    left = assert_only_text()
    wanted = {"check.html", "check.json", "report.html", "README.md", "results.csv", "suspects.csv"}
    assert {path.name for path in left} >= wanted
    card = left[Path("cleaned/model/README.md")]
    assert "<img" not in card
    assert "<script" not in card
    assert_left_out(folder, ["fit", *planted[:2], *shown], caplog)


def assert_left_out(folder: Path, fit: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """See that the table of suspects names the very keys."""
    suspects = "cleaned/check-before/suspects.csv"
    named = excluded_keys(suspects)
    assert 8 <= len(named) < len(KEYS)
    assert named < set(KEYS)
    assert set(next(ShardSet([str(folder / "00000.tar")]).without(named).keys())) == set(KEYS) - named
    cli.run([*fit, "--data.exclude", suspects, "--trainer.default_root_dir", "without"])
    assert f"({len(named)} left out by {suspects})" in caplog.text


def test_hostile_text_is_only_text_in_what_a_bench_leaves(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plan = {"target": CLASSES[0], "count": 9, "trigger": "BadNet"}
    spec = {
        "name": "tiny",
        "data": PLACE,
        "every": {"data": {"zero_shot": "${data}", "train_shards": "${data}/train"}},
        "train": {"config": config(Path("planted.yaml"), "PoisonedCLIP")},
        "attacks": {
            "BadNet": {"poison": {"class_path": "PoisonPlan", "init_args": plan}},
            "broken": {"poison": {"class_path": "PoisonPlan", "init_args": plan | {"target": TEXTS[12] + TEXTS[14]}}},
        },
        "seeds": [0],
        "twins": False,
    }
    Path("bench.yaml").write_text(yaml.safe_dump(spec))
    with pytest.raises(SystemExit):
        cli.run(["bench", "--config", "bench.yaml"])
    printed = "".join(capfd.readouterr())
    assert not CONTROLS.findall(printed)
    assert "1 cells failed" in printed
    assert "Traceback" not in "".join(path.read_text() for path in Path("runs/bench/tiny/logs").glob("*.log"))
    left = assert_only_text()
    assert {path.name for path in left} >= {"results.csv", "results.md", "results.tex", "report.html"}
    assert "\\input" not in left[Path("runs/bench/tiny/results.tex")]
