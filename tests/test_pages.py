"""The commands and snippets of README and site, in a folder that holds nothing but what their reader has by then.

Those of `docs/extending/` and of `docs/untrusted_model.md` are in tests of their own.
"""

from __future__ import annotations

import functools
import http.server
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from PIL import Image
from typist import SMALL, Typist, blocks, commands, shortened, write_small_cifar10
from vision_transformers import small_vit

from untrigger.files.packaged_configs import packaged_config

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
OWN_TESTS = {DOCS / "untrusted_model.md", *(DOCS / "extending").glob("*.md")}
PAGES = [ROOT / "README.md", *sorted(set(DOCS.rglob("*.md")) - OWN_TESTS)]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
QUICK = [*SMALL, "--trainer.fast_dev_run", "true"]
PARSED = ("open_clip:RN50/openai", "--trainer.devices 8", "--data.batch_size 1024", "--model.compile")
"""Options that would fetch a model, or take a larger machine or set."""
ELSEWHERE = ("pip install", "sbatch configs/slurm", "untrigger demo", "untrigger shards sizes", "https://example.org")
"""Commands that are not typed with those of their page: they have tests of their own, or have been done."""


def block(holding: str, language: str = "sh") -> str:
    """The first block of the pages that has a text."""
    return next(code for page in PAGES for code in blocks(page, language) if holding in code)


def page_commands(page: Path) -> list[str]:
    """All commands of a page, in order."""
    found = [code for code in blocks(page, "sh") if not code.startswith("--")]
    return [command.partition("   #")[0] for code in found for command in commands(code)]


class Reader(Typist):
    """A typist who types each command once, and first what makes the runs that it names."""

    def __init__(self, folder: Path, log: Path) -> None:
        super().__init__(folder, log)
        makes = re.compile(r"--trainer\.default_root_dir (runs/[\w-]+)")
        everything = [command for page in PAGES for command in page_commands(page)]
        self._makers = {found[1]: command for command in everything if (found := makes.search(command))}
        self._typed: set[str] = set()

    def follows(self, command: str) -> None:
        """Type a command of a page, on a small scale."""
        if command in self._typed or any(words in command for words in ELSEWHERE):
            return
        self._typed.add(command)
        for run in re.findall(r"runs/[\w-]+", command):
            if run in self._makers:
                self.follows(self._makers[run])
        if "shards torchvision" in command:  # there is no such data set here
            assert "untrigger: error: " in self.types(command.replace("--download true", ""), code=2)
        elif "untrigger bench" in command:
            said = self.types(command, *([] if "--slurm" in command else ["--run", "false"]))
            assert re.search("to run  BadNet-seed0|submitted 1, 1", said)
        elif "untrigger check" in command:
            self.types(command, "--ubt", "small.yaml")
        elif "untrigger detect" in command:
            self.types(command, "--detectors", "detectors.yaml", "--isolation_epochs", "1")
        else:
            self.types(command, *shortened(command))


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """A reader with CIFAR-10, with pairs and pictures of her own, and a SLURM that takes any job."""
    folder = tmp_path_factory.mktemp("reader")
    write_small_cifar10(folder / "cifar10")
    (folder / "pictures" / "banana").mkdir(parents=True)
    for number in range(3):
        Image.new("RGB", (40, 30), (250, 200, 40 * number)).save(folder / "pictures" / "banana" / f"{number}.png")
    lines = [f"pictures/banana/{number % 3}.png,a banana on a table" for number in range(300)]
    (folder / "pairs.csv").write_text("\n".join(["image,caption", *lines, ""]))
    (folder / "small.yaml").write_text(yaml.safe_dump(_small_ubt()))
    (folder / "detectors.yaml").write_text(yaml.safe_dump(_small_detectors()))
    small_vit(folder / "runs" / "vit-32")
    slurm = tmp_path_factory.mktemp("slurm")
    (slurm / "sbatch").write_text("#!/bin/sh\ncat > /dev/null\necho 1\n")
    (slurm / "sbatch").chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(slurm), prepend=":")
        with Reader(folder, tmp_path_factory.mktemp("said") / "log") as typist:
            yield typist


def _small_ubt() -> dict[str, object]:
    config: dict[str, dict[str, dict[str, object]]]
    config = yaml.safe_load(Path(packaged_config("configs/ubt/cifar10.yaml")).read_text())
    less = {"epochs": 1, "steps": 2}
    config["model"]["init_args"] |= {"probe": less, "repair": less, "rounds": 1, "sampled_pairs": 64}
    config["data"]["init_args"] |= {"batch_size": 32, "num_workers": 0}
    return dict(config)


def _small_detectors() -> dict[str, object]:
    config: dict[str, dict[str, dict[str, object]]]
    config = yaml.safe_load(Path(packaged_config("configs/pair_detectors/cifar10.yaml")).read_text())
    config["model"]["init_args"] |= {"sampled_pairs": 64}
    config["data"]["init_args"] |= {"batch_size": 32, "num_workers": 0}
    return dict(config)


def poisoned(reader: Reader) -> str:
    """The command that trains runs/badnet, once it was typed."""
    (poison,) = commands(block("--trainer.default_root_dir runs/badnet\n"))[:1]
    reader.follows(poison)
    return poison


@pytest.mark.parametrize("name", [name for name, page in zip(NAMES, PAGES, strict=True) if page_commands(page)])
def test_the_commands_of_a_page(reader: Reader, name: str) -> None:
    page = ROOT / name
    for command in page_commands(page):
        if command.startswith("untrigger shards"):  # several ways to make one folder
            shutil.rmtree(reader.folder / "shards", ignore_errors=True)
        if "--shards shards" in command and not (reader.folder / "shards").exists():
            reader.types("untrigger shards csv pairs.csv shards")
        if "downloaded.pt" in command:
            _download(reader)
        if command not in "\n".join(page_commands(DOCS / "untrusted_model.md")):
            reader.follows(command)


def _download(reader: Reader) -> None:
    poisoned(reader)
    shutil.copy(reader.folder / "runs" / "badnet" / "last.ckpt", reader.folder / "downloaded.pt")
    if (reader.folder / "scraped").exists():  # for another page
        return
    write_small_cifar10(reader.folder / "of_the_web", 1, 100, 4)
    shutil.move(reader.folder / "of_the_web" / "train", reader.folder / "scraped")


def test_every_snippet_is_run_here() -> None:
    text = Path(__file__).read_text()
    for page in PAGES:
        assert not blocks(page, ""), f"{page} has a block without a language"
        for code in blocks(page, "python") + blocks(page, "yaml"):
            assert any(holding in code for holding in re.findall(r'block\("([^"]+)", "', text)), code


def test_the_run_folder_holds_what_the_table_says(reader: Reader) -> None:
    poisoned(reader)
    page = (DOCS / "methods" / "poisoned_training.md").read_text()
    table = re.search(r"^\| file \| what \|\n\|---\|---\|\n((?:\|.*\n)+)", page, re.MULTILINE)
    assert table is not None
    names = [name for row in table[1].splitlines() for name in re.findall(r"`([\w.]+)`", row.split("|")[1])]
    assert {"last.ckpt", "poison.json", "results.csv", "evaluation.npz"} <= set(names)
    for name in names:
        # The second checkpoint is there after the second one.
        assert (reader.folder / "runs" / "badnet" / name).exists() or name == "previous.ckpt", name
    reader.types("untrigger report runs/badnet")


def test_any_part_of_a_config_can_be_overridden(reader: Reader) -> None:
    """All at once, as no option stands in two lines."""
    poison = poisoned(reader)
    (reader.folder / "other").mkdir()
    shutil.copy(reader.folder / "runs" / "badnet" / "poison.json", reader.folder / "other")
    reader.types("untrigger export runs/badnet/last.ckpt exported --format safetensors")
    (weights,) = (reader.folder / "exported").glob("*.safetensors")
    shutil.copy(weights, reader.folder / "model.safetensors")
    lines = [line.partition("#")[0] for line in commands(block("--data.attack other/poison.json    "))]
    several = [line.partition("#")[0] for line in commands(block("--trainer.devices 8 --trainer.strategy ddp"))]
    assert {" ".join(line.split()) for line in several} <= {" ".join(line.split()) for line in lines}
    parsed = [line for line in lines if any(option in line for option in PARSED)]
    assert len(parsed) == len(PARSED)
    words = poison.replace("runs/badnet", "runs/other")
    said = reader.types(" ".join([words, *parsed]), "--print_config")
    for written in ("encoder: open_clip:RN50/openai", "micro_batch_size: 128", "strategy: ddp", "compile: true"):
        assert written in said
    reader.types(" ".join([words, *(line for line in lines if line not in parsed)]), *QUICK)


def test_what_the_commands_leave(reader: Reader) -> None:
    for page in ("attacks/index.md", "attacks/plans.md", "methods/cleanclip.md", "methods/ubt.md", "protocol.md"):
        test_the_commands_of_a_page(reader, f"docs/{page}")
    for made in (
        *("sheet/preview.png", "poisoned/poison.json", "runs/badnet/similarities.csv"),
        *("runs/badnet-cleanclip/results.csv", "report.html", "runs/badnet-ubt/ubt.json"),
    ):
        assert (reader.folder / made).exists(), made


def test_evidence_of_one_s_own(reader: Reader) -> None:
    poisoned(reader)
    (reader.folder / "dimness.py").write_text(block("class Dimness", "python"))
    (command,) = [each for each in page_commands(DOCS / "methods" / "ubt.md") if "untrigger fit" in each]
    command = command.replace("runs/badnet-ubt", "runs/dimness")
    reader.types(command, *shortened(command), "--model.evidence", "[dimness.Dimness]")
    assert "Dimness" in (reader.folder / "runs" / "dimness" / "detection.csv").read_text()


def test_a_grid_of_one_s_own(reader: Reader) -> None:
    mine = yaml.safe_load(block("trigger: my_study.Corner", "yaml"))
    mine |= {"name": "mine", "train": {"config": "poisoned_clip/cifar10.yaml"}}
    (reader.folder / "mine.yaml").write_text(yaml.safe_dump(mine))
    said = reader.types("untrigger bench --config mine.yaml --data cifar10 --run false")
    assert "to run  mine-seed0--gentle" in said
    assert mine["imports"] == ["my_study"]


def test_shards_on_a_server(reader: Reader) -> None:
    sizes, fit = commands(block("untrigger shards sizes"))
    write_small_cifar10(reader.folder / "served", 32, 4, 4)
    shutil.move(reader.folder / "served" / "train", reader.folder / "train")
    handler = functools.partial(_Quiet, directory=reader.folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        reader.types(sizes.replace("99999", "00003"))
        served = f"http://127.0.0.1:{server.server_port}"
        words = fit.replace("99999", "00003").replace("https://example.org", served)
        reader.types(f"{words} --data.zero_shot cifar10", *QUICK)
        server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of each request."""
