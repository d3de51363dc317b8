from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from planted import ENCODER, Planted, figures, phased_trainer, same, weights

from untrigger.contracts import CLIPModule, UserMistake
from untrigger.lightning_modules import TBAR


@pytest.fixture(scope="module")
def known(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A list of the poisoned pairs."""
    data = planted.data()
    data.preprocessing = TBAR(ENCODER, given=str(_list(tmp_path_factory.mktemp("x"), ["x"]))).preprocessing
    data.setup("fit")
    return str(_list(tmp_path_factory.mktemp("known"), sorted(data.poisoned_keys)))


def _list(folder: Path, keys: list[str]) -> Path:
    path = folder / "keys.txt"
    path.write_text("\n".join(keys))
    return path


def module(planted: Planted, given: str, **arguments: Any) -> TBAR:
    torch.set_num_threads(1)
    seed_everything(0)
    return TBAR(ENCODER, init_from=str(planted.model), given=given, **({"lr": 1e-3, "epochs": 2} | arguments))


class Notes(Callback):
    """What is streamed, and the weights at the start of each epoch."""

    def __init__(self) -> None:
        self.keys: list[list[str]] = []
        self.began: list[dict[str, torch.Tensor]] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, TBAR)
        self.began.append(weights(pl_module))
        self.keys.append([])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.keys[-1] += batch["key"]


def tuned(planted: Planted, known: str, root: Path, **arguments: Any) -> tuple[TBAR, dict[str, torch.Tensor]]:
    """A run, and the weights after the finetuning: those of one that subtracts minus one vector."""
    clip = module(planted, known, **arguments)
    phased_trainer(root).fit(clip, planted.data())
    return clip, weights(clip)


def test_it_keeps_the_contract(planted: Planted, known: str) -> None:
    clip = module(planted, known)
    assert isinstance(clip, CLIPModule)
    assert clip.defence == "TBAR"


def test_the_result_lies_on_the_other_side_of_the_poisoned_weights(
    planted: Planted, known: str, tmp_path: Path
) -> None:
    before = weights(module(planted, known))
    ends = {times: tuned(planted, known, tmp_path, coefficient=times, epochs=1) for times in (0.0, 1.0, 2.5)}
    assert same(ends[0.0][1], before) == set(before)
    length = 0.0
    for name, start in before.items():
        if not start.is_floating_point():
            continue
        once, more = (ends[times][1][name] - start for times in (1.0, 2.5))
        torch.testing.assert_close(more, 2.5 * once, rtol=1e-3, atol=1e-5)
        length += float(once.double().square().sum())
        if not name.startswith("visual."):
            assert not once.any(), name
    assert length > 0
    assert ends[1.0][0].vector_length == pytest.approx(length**0.5, rel=1e-3)


def test_the_finetuning_strengthens_the_backdoor_and_subtracting_it_removes_it(
    planted: Planted, known: str, tmp_path: Path
) -> None:
    clip, _ = tuned(planted, known, tmp_path)
    accuracy, success = figures(clip, planted, tmp_path)
    clip.encoder.load_state_dict(
        {
            name: before if not before.is_floating_point() else 2 * before - clip.encoder.state_dict()[name]
            for name, before in weights(module(planted, known)).items()
        }
    )
    strengthened = figures(clip, planted, tmp_path)[1]
    poisoned = figures(module(planted, known), planted, tmp_path)
    assert success < 0.3 < poisoned[1] < strengthened
    assert accuracy > poisoned[0] - 0.2


def test_triggered_pairs_stand_among_others_in_every_epoch(planted: Planted, known: str, tmp_path: Path) -> None:
    clip, notes = module(planted, known, epochs=2, others_per_given=2), Notes()
    phased_trainer(tmp_path, notes).fit(clip, planted.data())
    given = set(Path(known).read_text().split())
    first, second, last = notes.keys
    for keys in (first, second):
        assert len(keys) == len(set(keys)) == 112  # of 120: whole batches
        assert len(set(keys) & given) > 30
    assert set(first) != set(second)
    assert len(last) == 16


def test_only_triggered_pairs_are_learnt(planted: Planted, known: str, tmp_path: Path) -> None:
    """The others are there as negatives: with no triggered pair in a batch there is no gradient."""
    clip = module(planted, known)
    phase: Any = clip.phases["finetune"]
    images, tokens = torch.randn(3, 3, 32, 32), clip.preprocessing.tokenize(["tomato", "a sea", "snow"])
    key = Path(known).read_text().split()[0]
    for keys, learns in ((["a", "b", "c"], False), ([key, "b", "c"], True)):
        clip.zero_grad()
        batch: Any = {"key": keys, "image": images, "tokens": tokens}
        loss = phase.step(clip, batch, 0)
        loss.backward()
        assert (float(loss.detach()) > 0) == learns
        moved = [part for part in clip.encoder.image_tower.parameters() if part.grad is not None and part.grad.any()]
        assert bool(moved) == learns


def test_what_cannot_be_is_reported(planted: Planted, known: str, tmp_path: Path) -> None:
    with pytest.raises(UserMistake, match=r"TBAR needs triggered pairs: name them by model\.given"):
        TBAR(ENCODER)
    with pytest.raises(UserMistake, match=r"model\.coefficient is -1\.0, not at least 0"):
        module(planted, known, coefficient=-1.0)
    foreign = module(planted, str(_list(tmp_path, ["somebody", "else"])))
    with pytest.raises(UserMistake, match=r"model\.given names no pair of data\.train_shards"):
        phased_trainer(tmp_path).fit(foreign, planted.data())
    first = Path(known).read_text().split()[:1]
    few = module(planted, str(_list(tmp_path, first)), others_per_given=1)
    with pytest.raises(UserMistake, match="TBAR: 1 triggered pairs and 1 others do not fill a batch of 16"):
        phased_trainer(tmp_path).fit(few, planted.data())
