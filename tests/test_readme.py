"""The README's commands and snippets, in a folder that holds nothing but what its reader has by then."""

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

from untrigger.packaged_configs import packaged_config

README = Path(__file__).parents[1] / "README.md"
QUICK = [*SMALL, "--trainer.fast_dev_run", "true"]
PARSED = ("open_clip:RN50/openai", "--trainer.devices 8", "--data.batch_size 1024", "--model.compile")
"""Options that would fetch a model, or take a larger machine or set."""


def block(holding: str, language: str = "") -> str:
    """The first block of the README that has a text."""
    return next(code for code in blocks(README, language) if holding in code)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Typist]:
    """A reader who has done what "Poison a model" says."""
    folder = tmp_path_factory.mktemp("reader")
    write_small_cifar10(folder / "cifar10")
    with Typist(folder, tmp_path_factory.mktemp("said") / "log") as typist:
        (poison,) = commands(block("--config configs/poisoned_clip/cifar10.yaml"))
        typist.types(poison, *shortened(poison))
        yield typist


def test_every_block_is_run_here_or_said_not_to_be() -> None:
    text = Path(__file__).read_text()
    elsewhere = ("make demo", "sbatch configs/slurm")  # tests/commands/test_demo.py; make test-slurm
    for code in blocks(README, "") + blocks(README, "python") + blocks(README, "yaml"):
        assert any(holding in code for holding in (*elsewhere, *re.findall(r'block\("([^"]+)"', text))), code


def test_the_run_folder_holds_what_the_table_says(reader: Typist) -> None:
    table = re.search(r"^\| file \| what \|\n\|---\|---\|\n((?:\|.*\n)+)", README.read_text(), re.MULTILINE)
    assert table is not None
    names = [name for row in table[1].splitlines() for name in re.findall(r"`([\w.]+)`", row.split("|")[1])]
    assert {"last.ckpt", "poison.json", "results.csv", "evaluation.npz"} <= set(names)
    for name in names:
        # The second checkpoint is there after the second one.
        assert (reader.folder / "runs" / "badnet" / name).exists() or name == "previous.ckpt", name
    reader.types("untrigger report runs/badnet")


def test_any_part_of_a_config_can_be_overridden(reader: Typist) -> None:
    """All at once, as no option stands in two lines."""
    (reader.folder / "other").mkdir()
    shutil.copy(reader.folder / "runs" / "badnet" / "poison.json", reader.folder / "other")
    reader.types("untrigger export runs/badnet/last.ckpt exported --format safetensors")
    (weights,) = (reader.folder / "exported").glob("*.safetensors")
    shutil.copy(weights, reader.folder / "model.safetensors")
    lines = [line.partition("#")[0] for line in commands(block("--data.poison.trigger Blended"))]
    parsed = [line for line in lines if any(option in line for option in PARSED)]
    assert len(parsed) == len(PARSED)
    (poison,) = commands(block("--config configs/poisoned_clip/cifar10.yaml"))
    words = poison.replace("runs/badnet", "runs/other")
    said = reader.types(" ".join([words, *parsed]), "--print_config")
    for written in ("encoder: open_clip:RN50/openai", "micro_batch_size: 128", "strategy: ddp", "compile: true"):
        assert written in said
    reader.types(" ".join([words, *(line for line in lines if line not in parsed)]), *QUICK)


def test_what_an_attack_does_is_looked_at(reader: Typist) -> None:
    (preview,) = commands(block("--out sheet --preview"))
    reader.types(preview)
    assert (reader.folder / "sheet" / "preview.png").exists()


def test_a_model_is_measured_cleaned_and_unlearnt(reader: Typist) -> None:
    measuring = block("untrigger validate")
    cleaning, unlearning = block("--config configs/cleanclip/cifar10.yaml"), block("--config configs/ubt/cifar10.yaml")
    for command in commands(measuring + cleaning + unlearning):
        reader.types(command, *shortened(command))
    runs = reader.folder / "runs"
    for made in ("badnet/similarities.csv", "badnet-cleanclip/results.csv", "../report.html", "badnet-ubt/ubt.json"):
        assert (runs / made).exists(), made


def test_evidence_of_one_s_own(reader: Typist) -> None:
    (reader.folder / "dimness.py").write_text(block("class Dimness", "python"))
    (command,) = commands(block("--config configs/ubt/cifar10.yaml"))
    command = command.replace("runs/badnet-ubt", "runs/dimness")
    reader.types(command, *shortened(command), "--model.evidence", "[dimness.Dimness]")
    assert "Dimness" in (reader.folder / "runs" / "dimness" / "detection.csv").read_text()


def test_a_model_of_unknown_origin(reader: Typist) -> None:
    """With pairs; tests/test_untrusted_model.py goes on without them, and through the hand-back."""
    shutil.copy(reader.folder / "runs" / "badnet" / "last.ckpt", reader.folder / "downloaded.pt")
    write_small_cifar10(reader.folder / "of_the_web", 1, 100, 4)
    shutil.move(reader.folder / "of_the_web" / "train", reader.folder / "scraped")
    config = yaml.safe_load(Path(packaged_config("configs/ubt/cifar10.yaml")).read_text())
    less = {"epochs": 1, "steps": 2}
    config["model"]["init_args"] |= {"probe": less, "repair": less, "rounds": 1, "sampled_pairs": 64}
    config["data"]["init_args"] |= {"batch_size": 32, "num_workers": 0}
    (reader.folder / "small.yaml").write_text(yaml.safe_dump(config))
    check, _, clean, export = commands(block("untrigger check downloaded.pt"))
    reader.types(check, "--ubt", "small.yaml")
    reader.types(clean, "--ubt", "small.yaml")
    assert (reader.folder / "answer" / "check.html").exists()
    assert (reader.folder / "cleaned" / "model").exists()
    # Transformers does not know its architecture.
    assert "small:nano-32" in reader.types(export, code=2)
    reader.types(export.replace("--format hf", "--format safetensors"))
    assert (reader.folder / "back" / "README.md").exists()


def test_grids(reader: Typist) -> None:
    (bench,) = commands(block("untrigger bench --config configs/bench/cifar10.yaml"))
    assert "to run  BadNet-seed0" in reader.types(bench, "--run", "false")
    mine = yaml.safe_load(block("trigger: my_study.Corner", "yaml"))
    mine |= {"name": "mine", "train": {"config": "poisoned_clip/cifar10.yaml"}}
    (reader.folder / "mine.yaml").write_text(yaml.safe_dump(mine))
    said = reader.types("untrigger bench --config mine.yaml --data cifar10 --run false")
    assert "to run  mine-seed0--gentle" in said
    assert mine["imports"] == ["my_study"]


def test_data_of_one_s_own(reader: Typist) -> None:
    folder = reader.folder
    (folder / "pictures" / "banana").mkdir(parents=True)
    for number in range(3):
        Image.new("RGB", (40, 30), (250, 200, 40 * number)).save(folder / "pictures" / "banana" / f"{number}.png")
    lines = [f"pictures/banana/{number % 3}.png,a banana on a table" for number in range(300)]
    (folder / "pairs.csv").write_text("\n".join(["image,caption", *lines, ""]))
    csv, pictures, torchvision, poison = commands(block("untrigger shards csv"))
    reader.types(pictures)
    shutil.rmtree(folder / "shards")
    assert "untrigger: error: " in reader.types(torchvision, code=2)  # there is no such data set here
    reader.types(csv)
    reader.types(poison)
    assert (folder / "poisoned" / "poison.json").exists()


def test_shards_on_a_server(reader: Typist) -> None:
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


def test_a_class_of_one_s_own(reader: Typist) -> None:
    (reader.folder / "my_study.py").write_text(block("class MyAttackStudy", "python"))
    (written,) = re.findall(r"in your YAML `(model: .*?)`", README.read_text())
    content = yaml.safe_load(written)
    content["model"]["init_args"]["encoder"] = "small:nano-32"
    (reader.folder / "own.yaml").write_text(yaml.safe_dump(content))
    (poison,) = commands(block("--config configs/poisoned_clip/cifar10.yaml"))
    words = poison.replace(" --data.train", " --config own.yaml --data.train", 1).replace("runs/badnet", "runs/own")
    reader.types(words, *[word for word in shortened(words) if word not in ("--model.encoder", "small:nano-32")])
    saved = yaml.safe_load((reader.folder / "runs" / "own" / "config.yaml").read_text())
    assert saved["model"]["class_path"] == "my_study.MyAttackStudy"
    assert saved["model"]["init_args"]["text_weight"] == 0.5
