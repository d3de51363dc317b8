from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import seed_everything
from PIL import Image
from shard_files import members
from training import quiet_trainer

from untrigger import cli
from untrigger.commands.poison.command import poison
from untrigger.contracts import Preprocessing, UserMistake
from untrigger.datamodules import (
    SIG,
    BadNet,
    Blended,
    CoverPlan,
    DualKeyPlan,
    GivenPicture,
    ImageTextDataModule,
    LabelConsistentPlan,
    PoisonPlan,
    SingleImagePlan,
    WaNet,
)
from untrigger.datamodules.generated import write_generated_data
from untrigger.lightning_modules import PoisonedCLIP
from untrigger.run_folder.manifest import read_plans, write_plans


def plan() -> PoisonPlan:
    return PoisonPlan(BadNet(size=6), "star", count=9, seed=4)


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    write_generated_data(tmp_path / "data", 96, 10, image_size=48, shard_size=40)
    return tmp_path / "data" / "train"


@pytest.fixture
def baked(clean: Path, tmp_path: Path) -> Path:
    poison(str(clean), str(tmp_path / "baked"), plan(), 32)
    return tmp_path / "baked"


def test_remote_shards_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserMistake, match="copy them here first"):
        poison("http://127.0.0.1:9/{0..3}.tar", str(tmp_path / "baked"), plan(), 32)


def test_only_the_chosen_change_and_the_rest_is_copied_byte_for_byte(clean: Path, baked: Path) -> None:
    chosen = set(json.loads((baked / "poison.json").read_text())["plans"][0]["keys"])
    assert len(chosen) == 9
    names = sorted(path.name for path in clean.glob("*.tar"))
    assert sorted(path.name for path in baked.glob("*.tar")) == names
    for name in names:
        before, after = members(clean / name), members(baked / name)
        for member, data in before.items():
            key, _, suffix = member.rpartition(".")
            if key not in chosen:
                assert after[member] == data
            elif suffix == "txt":
                assert b"star" in after[member]
            elif suffix == "json":
                assert json.loads(after[member])["caption"] == after[f"{key}.txt"].decode()
            else:
                assert after[f"{key}.png"] != data
        assert len(after) == len(before)


def test_a_chosen_pair_that_is_broken_stays_as_it_is(
    tmp_path: Path, write_pairs: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = write_pairs([12], broken=range(0, 12, 4))
    poison(path, str(tmp_path / "baked"), PoisonPlan(BadNet(), "star", count=12), 32)
    assert (
        "Poisoned 9 of 12 pairs (3 chosen ones are broken and stay as they are: broken picture 3)"
        in capsys.readouterr().out
    )
    keys = json.loads((tmp_path / "baked" / "poison.json").read_text())["plans"][0]["keys"]
    assert sorted(keys) == sorted(f"k{number:04d}" for number in range(12) if number % 4)
    before, after = members(Path(path)), members(tmp_path / "baked" / "00000.tar")
    assert after["k0000.png"] == before["k0000.png"]
    assert after["k0001.png"] != before["k0001.png"]


def train(shards: Path, **arguments: Any) -> dict[str, torch.Tensor]:
    seed_everything(1)
    module = PoisonedCLIP("small:nano-32", lr=1e-3)
    data = ImageTextDataModule(str(shards), batch_size=16, num_workers=0, **arguments)
    trainer = quiet_trainer(shards.parent / "run", max_epochs=2, limit_val_batches=0)
    trainer.fit(module, data)
    return module.state_dict()


def test_training_on_baked_shards_equals_training_on_the_fly(clean: Path, baked: Path) -> None:
    torch.set_num_threads(1)
    on_the_fly = train(clean, poison=plan())
    on_baked = train(baked)
    assert all(torch.equal(on_the_fly[name], on_baked[name]) for name in on_the_fly)
    unpoisoned = train(clean)
    assert not all(torch.equal(on_the_fly[name], unpoisoned[name]) for name in on_the_fly)


def test_baked_shards_show_what_every_kind_of_plan_shows_on_the_fly(
    clean: Path, tmp_path: Path, preprocessing: Preprocessing
) -> None:
    picture = tmp_path / "given.png"
    Image.new("RGB", (40, 50), "red").save(picture)
    plans = [
        DualKeyPlan(BadNet(5), "star", count=4),
        PoisonPlan(WaNet(s=3.0), "ring", count=4),
        CoverPlan(WaNet(s=3.0, noise=True), "ring", count=4),
        LabelConsistentPlan(SIG(), "star", count=2),
        PoisonPlan(Blended(pattern="fresh_noise"), "ring", count=4),
        SingleImagePlan(GivenPicture([str(picture)]), "star", count=4),
    ]
    poison(str(clean), str(tmp_path / "baked"), plans, 32)
    shown = []
    for shards, plan in ((clean, plans), (tmp_path / "baked", None)):
        data = ImageTextDataModule(str(shards), poison=plan, batch_size=16, num_workers=0)
        data.preprocessing = preprocessing
        data.setup("fit")
        keys = sorted(key for keys in iter(data._pairs.shards.keys()) for key in keys)
        shown.append((data.pictures(keys), data.captions(keys)))
    (on_the_fly, reported), (on_baked, baked_reported) = shown
    assert torch.equal(on_the_fly, on_baked)
    assert reported == baked_reported


def test_the_command_line_takes_a_plan_and_a_manifest(clean: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    options = ["--image_size", "32", "--shards", str(clean)]
    trigger = ["--plan.trigger", "BadNet", "--plan.trigger.size", "6"]
    cli.run(
        [
            "poison",
            *options,
            "--out",
            str(first),
            "--plan",
            "PoisonPlan",
            "--plan.target",
            "star",
            "--plan.rate",
            "0.2",
            *trigger,
        ]
    )
    cli.run(["poison", *options, "--out", str(second), "--plan", str(first / "poison.json")])
    for shard in first.glob("*.tar"):
        assert shard.read_bytes() == (second / shard.name).read_bytes()


def test_shards_that_are_poisoned_already_keep_their_marks(clean: Path, baked: Path, tmp_path: Path) -> None:
    second = PoisonPlan(BadNet(size=4), "ring", count=9, seed=4)
    poison(str(baked), str(tmp_path / "again"), second, 32)
    poison(str(clean), str(tmp_path / "both"), [plan(), second], 32)
    again, both = tmp_path / "again", tmp_path / "both"
    assert (again / "poison.json").read_bytes() == (both / "poison.json").read_bytes()
    assert all(members(shard) == members(both / shard.name) for shard in again.glob("*.tar"))
    # Of some of the shards, what these hold; also where they are reached by a link.
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "0.tar").symlink_to(baked / "00000.tar")
    poison(str(tmp_path / "links"), str(tmp_path / "part"), PoisonPlan(BadNet(), "ring", count=1), 32)
    there = {name.rpartition(".")[0] for name in members(baked / "00000.tar")}
    (before,), (first, _) = (read_plans(folder / "poison.json") for folder in (baked, tmp_path / "part"))
    assert 0 < len(first.keys) < len(before.keys)
    assert first.keys == [key for key in before.keys if key in there]


def test_marks_of_a_plan_that_is_not_known_here_are_kept(baked: Path, tmp_path: Path) -> None:
    (record,) = read_plans(baked / "poison.json")
    unknown = replace(record, kind="elsewhere.OwnPlan")
    write_plans([unknown], baked / "poison.json")
    poison(str(baked), str(tmp_path / "again"), PoisonPlan(BadNet(), "ring", count=3), 32)
    assert read_plans(tmp_path / "again" / "poison.json")[0] == unknown


def test_a_manifest_of_what_is_stamped_already_is_refused(
    baked: Path, tmp_path: Path, preprocessing: Preprocessing
) -> None:
    with pytest.raises(UserMistake, match=r"9 of the pairs .* are poisoned in these shards already, .* --data\.attack"):
        poison(str(baked), str(tmp_path / "twice"), str(baked / "poison.json"), 32)
    data = ImageTextDataModule(str(baked), poison=str(baked / "poison.json"), batch_size=16, num_workers=0)
    data.preprocessing = preprocessing
    with pytest.raises(UserMistake, match="would be stamped twice"):
        data.setup("fit")


def test_a_run_stamps_none_of_the_pairs_that_are_stamped_already(baked: Path, preprocessing: Preprocessing) -> None:
    before = set(read_plans(baked / "poison.json")[0].keys)
    data = ImageTextDataModule(str(baked), poison=PoisonPlan(BadNet(), "ring", count=87), batch_size=16, num_workers=0)
    data.preprocessing = preprocessing
    data.setup("fit")
    assert len(data.poisoned_keys) == 87
    assert before.isdisjoint(data.poisoned_keys)


def test_the_manifest_of_a_run_does_not_fall_beside_its_shards(clean: Path) -> None:
    data = ImageTextDataModule(str(clean), poison=plan(), batch_size=16, num_workers=0)
    with pytest.raises(UserMistake, match=r"would lie beside the training shards, .* --trainer\.default_root_dir"):
        quiet_trainer(clean, max_epochs=1, limit_val_batches=0).fit(PoisonedCLIP("small:nano-32"), data)
    assert not (clean / "poison.json").exists()


def test_mistakes(clean: Path, tmp_path: Path, write_pairs: Callable[..., list[str]]) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(UserMistake, match="is not an empty folder"):
        poison(str(clean), str(tmp_path / "full"), plan(), 32)
    with pytest.raises(UserMistake, match="trigger size 6 is larger than the 4 x 4 input"):
        poison(str(clean), str(tmp_path / "new"), plan(), 4)
    first = tmp_path / "first"
    poison(str(clean / "00000.tar"), str(first), plan(), 32)
    with pytest.raises(UserMistake, match="none of the 9 pairs that the poison manifest names is in these shards"):
        poison(str(clean / "00001.tar"), str(tmp_path / "new"), str(first / "poison.json"), 32)
    twice = [*write_pairs([2], folder="a"), *write_pairs([2], folder="b")]
    with pytest.raises(UserMistake, match="same file name"):
        poison(twice, str(tmp_path / "other"), plan(), 32)


def test_a_plan_whose_pairs_are_all_broken_poisons_nothing(tmp_path: Path, write_shard: Callable[..., str]) -> None:
    pairs = [(f"k{n}", {"jpg": b"broken", "txt": b"a star"}) for n in range(10)]
    with pytest.raises(UserMistake, match=r"nothing is poisoned: none of the \d+ pairs .* \(broken picture \d+\)"):
        poison(write_shard(tmp_path / "0.tar", pairs), str(tmp_path / "out"), plan(), 32)
