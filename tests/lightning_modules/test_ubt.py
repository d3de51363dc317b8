from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor, nn

from untrigger.callbacks import CleanAccuracy, LastCheckpoint, ResultsWriter
from untrigger.contracts import CLIPModule, DetectingModule, ImageTextBatch, PhasedModule, UserMistake
from untrigger.datamodules import BadNet, ImageTextDataModule, PoisonPlan
from untrigger.datamodules.generated import write_generated_data
from untrigger.datamodules.shards import ShardSet
from untrigger.lightning_modules import UBT, BlurFragility, Evidence, OverfittedSimilarity
from untrigger.lightning_modules.unlearning import phases
from untrigger.lightning_modules.unlearning.findings import BENIGN, POISONED
from untrigger.lightning_modules.unlearning.localisation import CompromisedTokens
from untrigger.lightning_modules.unlearning.scores import Scores

PHASES = ["score", "overfit", "suspect", "forget", "look again", "forget again"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_generated_data(folder, 96, 20)
    return folder


def module(**arguments: Any) -> UBT:
    torch.set_num_threads(1)
    seed_everything(0)
    defaults: dict[str, Any] = {
        "overfit_epochs": 2,
        "overfit_lr": 1e-3,
        "lr": 1e-3,
        "suspects": 2,
        "doubtful_share": 0.6,
        "localised_pairs": 24,
        "min_token_share": 0.05,
        "min_lift": 1.0,
        "min_split": 0.01,
        "min_transfer": 1e-6,
        "forget_laps": 2,
        "forget_steps": 2,
        "forget_batch_size": 4,
    }
    return UBT("small:nano-32", **(defaults | arguments))


def data(folder: Path, **arguments: Any) -> ImageTextDataModule:
    defaults: dict[str, Any] = {
        "poison": PoisonPlan(BadNet(size=8), "star", count=12),
        "batch_size": 8,
        "eval_batch_size": 20,
        "num_workers": 0,
    }
    return ImageTextDataModule(str(folder / "train"), **(defaults | arguments))


def trainer(root: Path, *callbacks: Callback, **arguments: Any) -> Trainer:
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "max_epochs": -1,
        "reload_dataloaders_every_n_epochs": 1,
        "limit_val_batches": 0,
        "logger": False,
        "enable_checkpointing": any(isinstance(callback, LastCheckpoint) for callback in callbacks),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": root,
    }
    return Trainer(callbacks=list(callbacks), **(defaults | arguments))


def weights(ubt: UBT) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in ubt.encoder.state_dict().items()}


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[str]:
    return [name for name in one if torch.equal(one[name], other[name])]


class Diary(Callback):
    """Notes the phase, the pairs and the batch norms of each epoch, and the weights that it started with."""

    def __init__(self) -> None:
        self.epochs: list[tuple[str, list[str]]] = []
        self.began: dict[str, dict[str, Tensor]] = {}
        self.augmented = False

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, UBT)
        assert pl_module.running is not None
        name = pl_module.running.name
        self.began.setdefault(name, weights(pl_module))
        self.epochs.append((name, []))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self.epochs:  # in the middle of an epoch
            self.epochs.append(("", []))
        self.epochs[-1][1].extend(batch["key"])


@pytest.fixture(scope="module", autouse=True)
def _two_humps() -> Iterator[None]:
    """The falls of a random model have one hump; the split has tests of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phases, "two_humps", lambda scores: (float(np.median(scores)), 1.0))
        yield


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[UBT, Diary, Path]:
    """A whole run, with the checkpoint that it leaves."""
    root = tmp_path_factory.mktemp("run")
    ubt, diary = module(), Diary()
    checkpoint = LastCheckpoint(dirpath=str(root), save_last=True, save_top_k=0, save_on_train_epoch_end=True)
    trainer(root, diary, checkpoint).fit(ubt, data(folder))
    return ubt, diary, root


def test_it_keeps_the_contracts() -> None:
    ubt = module()
    assert isinstance(ubt, CLIPModule)
    assert isinstance(ubt, PhasedModule)
    assert isinstance(ubt, DetectingModule)
    assert (ubt.defence, ubt.phase, ubt.measured, ubt.suspicion) == ("UBT", "score", "", None)


def test_phases_come_in_the_papers_order_each_with_its_pairs(run: tuple[UBT, Diary, Path]) -> None:
    ubt, diary, _ = run
    assert list(dict.fromkeys(name for name, _ in diary.epochs)) == PHASES
    assert ubt.phase == "done"
    everything = sorted(ubt.findings.keys)
    assert len(everything) == 96
    scoring = [keys for name, keys in diary.epochs if name in ("score", "suspect", "look again")]
    assert [sorted(keys) for keys in scoring] == [everything] * 3
    weakest = np.argsort(ubt.findings.seen["poisoned"], kind="stable")[:9]
    for name, keys in diary.epochs:
        if name == "overfit":
            assert set(keys) <= {ubt.findings.keys[place] for place in weakest}
            assert len(keys) == 8
    assert sum(name == "overfit" for name, _ in diary.epochs) == 2


def test_what_is_unlearnt_or_suspicious_never_serves_as_retention(run: tuple[UBT, Diary, Path]) -> None:
    ubt, diary, _ = run
    last = {key for name, keys in diary.epochs if name == "forget again" for key in keys}
    not_benign = set(ubt.findings.keys_of(np.flatnonzero(ubt.findings.decision != BENIGN)))
    assert last
    assert not_benign
    assert not last & not_benign
    assert ubt.findings.having(POISONED).size >= 1


def test_the_copy_moves_as_a_whole_and_forgetting_moves_the_image_tower_alone(run: tuple[UBT, Diary, Path]) -> None:
    ubt, diary, _ = run
    began, copy = diary.began["score"], diary.began["suspect"]
    assert not [name for name in same(began, copy) if "num_batches" not in name and "running" not in name]
    for start in ("forget", "forget again"):  # each starts from the poisoned model
        assert len(same(began, diary.began[start])) == len(began)
    image = {f"visual.{name}" for name, _ in ubt.encoder.image_tower.named_parameters()}
    for after in (diary.began["look again"], weights(ubt)):
        kept = set(same(began, after))
        assert set(began) - kept == image  # statistics of batch norm are kept too


def test_finished_checkpoints_are_tensors_and_start_another_model(run: tuple[UBT, Diary, Path], tmp_path: Path) -> None:
    ubt, _, root = run
    content = torch.load(root / "last.ckpt", weights_only=True)
    assert content["phased"]["initial"] == {}
    assert set(content["state_dict"]) == {f"encoder.{name}" for name in weights(ubt)}
    again = UBT.load_from_checkpoint(root / "last.ckpt", weights_only=True)
    assert len(same(weights(ubt), weights(again))) == len(weights(ubt))
    started = module(init_from=str(root / "last.ckpt"))
    assert len(same(weights(ubt), weights(started))) == len(weights(ubt))


class Kill(Callback):
    """Ends a run at a batch of an epoch, with or without the checkpoint that SLURM would have asked for."""

    def __init__(self, epoch: int, batch: int, save: Path | None = None) -> None:
        self.at, self.save = (epoch, batch), save

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (trainer.current_epoch, batch_idx) == self.at:
            if self.save is not None:
                trainer.save_checkpoint(self.save)
            raise RuntimeError("killed")


@pytest.mark.parametrize("epoch", range(7))
def test_a_run_that_is_killed_in_any_phase_goes_on_to_the_same_end(
    epoch: int, run: tuple[UBT, Diary, Path], folder: Path, tmp_path: Path
) -> None:
    whole, diary, _ = run
    checkpoint = LastCheckpoint(dirpath=str(tmp_path), save_last=True, save_top_k=0, save_on_train_epoch_end=True)
    middle = tmp_path / "middle.ckpt"
    kill = Kill(epoch, 0, middle if epoch in (0, 4, 6) else None)
    with pytest.raises(RuntimeError, match="killed"):
        trainer(tmp_path, checkpoint, kill).fit(module(), data(folder))
    rest, seen = module(), Diary()
    path = middle if middle.exists() else tmp_path / "last.ckpt"
    checkpoint = LastCheckpoint(dirpath=str(tmp_path), save_last=True, save_top_k=0, save_on_train_epoch_end=True)
    trainer(tmp_path, checkpoint, seen).fit(rest, data(folder), ckpt_path=path, weights_only=True)
    assert rest.findings.keys == whole.findings.keys
    assert np.array_equal(rest.findings.suspicion["suspicion"], whole.findings.suspicion["suspicion"])
    assert np.array_equal(rest.findings.decision, whole.findings.decision)
    for name, scores in whole.findings.suspicion.items():
        assert np.array_equal(rest.findings.suspicion[name], scores), name
    assert len(same(weights(whole), weights(rest))) == len(weights(whole))
    # Nothing is done twice but the epoch that the checkpoint does not hold.
    assert len(seen.epochs) <= len(diary.epochs) - epoch


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_a_finished_run_that_is_continued_ends_at_once(
    run: tuple[UBT, Diary, Path], folder: Path, tmp_path: Path
) -> None:
    ubt, _, root = run
    again, diary = module(), Diary()
    checkpoint = LastCheckpoint(dirpath=str(tmp_path), save_last=True, save_top_k=0, save_on_train_epoch_end=True)
    trainer(tmp_path, diary, checkpoint).fit(again, data(folder), ckpt_path=root / "last.ckpt", weights_only=True)
    assert diary.epochs == []
    assert len(same(weights(ubt), weights(again))) == len(weights(ubt))


def test_where_nothing_is_suspicious_the_model_stays_as_it_was(folder: Path, tmp_path: Path) -> None:
    ubt, diary = module(min_lift=1e6), Diary()
    before = weights(ubt)
    trainer(tmp_path, diary).fit(ubt, data(folder))
    assert [name for name, _ in diary.epochs] == ["score", "overfit", "overfit", "suspect"]
    assert len(same(before, weights(ubt))) == len(before)
    assert ubt.suspicion is not None
    assert not ubt.suspicion.decision.any()
    assert ubt.phase == "done"


def wrong_at_first(ubt: UBT) -> Callable[[Scores], tuple[float, float]]:
    """Looking again finds that the suspects are the wrong ones, as long as there are others to be tried."""
    return lambda scores: (float(np.median(scores)), 0.0 if ubt.findings.untried else 1.0)


def test_wrong_suspects_make_room_for_those_of_coarser_evidence(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ubt, diary = module(tries=2), Diary()
    monkeypatch.setattr(phases, "two_humps", wrong_at_first(ubt))
    poisoned = weights(ubt)
    trainer(tmp_path / "whole", diary).fit(ubt, data(folder))
    names = [name for name, _ in diary.epochs]
    assert [name for name, _ in groupby(names)] == [*PHASES[:5], "forget", "look again", "forget again"]
    assert {"BlurFragility-0.0625"} == {name for name in ubt.findings.suspicion if name.startswith("Blur")}
    assert ubt.alarm

    second = names.index("look again") + 1
    again, rest, start = module(tries=2), Diary(), tmp_path / "middle.ckpt"
    monkeypatch.setattr(phases, "two_humps", wrong_at_first(again))
    with pytest.raises(RuntimeError, match="killed"):
        trainer(tmp_path, Kill(second, 0, start)).fit(again, data(folder))
    rested = module(tries=2)
    monkeypatch.setattr(phases, "two_humps", wrong_at_first(rested))
    trainer(tmp_path, rest).fit(rested, data(folder), ckpt_path=start, weights_only=True)
    assert len(same(weights(ubt), weights(rested))) == len(poisoned)
    assert np.array_equal(ubt.findings.decision, rested.findings.decision)
    content = torch.load(start, weights_only=True)
    assert all(torch.equal(content["phased"]["initial"][name], poisoned[name]) for name in poisoned)


def test_the_second_suspects_are_forgotten_from_the_poisoned_model(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phases, "two_humps", lambda scores: (float(np.median(scores)), 0.0))
    starts: list[dict[str, Tensor]] = []

    class Starts(Diary):
        def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            super().on_train_epoch_start(trainer, pl_module)
            assert isinstance(pl_module, UBT)
            if pl_module.phase.startswith("forget 1/"):
                starts.append(weights(pl_module))

    ubt, diary = module(tries=2), Starts()
    before = weights(ubt)
    trainer(tmp_path, diary).fit(ubt, data(folder))
    assert [len(same(before, start)) for start in starts] == [len(before)] * 2
    assert not ubt.alarm
    assert len(same(before, weights(ubt))) == len(before)


class EachWord(Evidence):
    """At its coarser scale, every caption's word is compromised."""

    def __init__(self, coarse: bool = False) -> None:
        self.coarse = coarse

    @property
    def name(self) -> str:
        return "EachWord-coarse" if self.coarse else "EachWord"

    def coarser(self) -> Evidence:
        return EachWord(coarse=True)

    def suspicion(self, seen: Mapping[str, Scores]) -> Scores:
        return seen["poisoned"] if self.coarse else seen["overfitted"]


def test_a_second_try_that_leaves_nothing_benign_is_left_out(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phases, "two_humps", lambda scores: (float(np.median(scores)), 0.0))
    found: list[CompromisedTokens] = []

    def localise(ubt: UBT, *_: Any) -> CompromisedTokens:
        captions = ubt.findings.captions
        every = np.flatnonzero(captions.shares()).tolist()
        tokens = every if found else [token for token in every if captions.having([token]).mean() < 0.5][:1]
        found.append(CompromisedTokens(tokens, [str(token) for token in tokens], [9.0] * len(tokens)))
        return found[-1]

    monkeypatch.setattr(phases, "localise", localise)
    ubt, diary = module(evidence=[EachWord()], alone=[], doubtful_share=0.99), Diary()
    trainer(tmp_path, diary).fit(ubt, data(folder))
    assert len(found) == 2
    assert [name for name, _ in groupby(name for name, _ in diary.epochs)] == PHASES[:5]
    assert not ubt.alarm


def some_word(ubt: UBT, *_: Any) -> CompromisedTokens:
    """A word that less than half of the captions have, whoever is suspicious."""
    captions = ubt.findings.captions
    token = next(token for token in np.flatnonzero(captions.shares()).tolist() if captions.having([token]).mean() < 0.5)
    return CompromisedTokens([token], [str(token)], [9.0])


class AmongWords(OverfittedSimilarity):
    """The paper's evidence, among pairs of the same words."""

    among_words = True


def test_evidence_that_is_asked_alone_is_compared_among_words(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ubt, diary = module(evidence=[OverfittedSimilarity()], alone=[BlurFragility(), AmongWords()]), Diary()
    monkeypatch.setattr(phases, "two_humps", wrong_at_first(ubt))
    monkeypatch.setattr(phases, "localise", some_word)
    trainer(tmp_path, diary).fit(ubt, data(folder))
    assert [name for name, _ in groupby(name for name, _ in diary.epochs)].count("look again") == 3
    findings = ubt.findings
    assert list(findings.suspicion) == ["AmongWords", "suspicion", "fall", "final"]
    raw = findings.seen["overfitted"]
    assert np.array_equal(findings.suspicion["AmongWords"], findings.captions.unexplained(raw))
    assert np.corrcoef(findings.suspicion["suspicion"], raw)[0, 1] < 0.99


def test_a_run_goes_on_with_the_evidence_that_it_was_begun_with(folder: Path, tmp_path: Path) -> None:
    start = tmp_path / "start.ckpt"
    with pytest.raises(RuntimeError, match="killed"):
        trainer(tmp_path, Kill(1, 0, start)).fit(module(alone=[]), data(folder))
    with pytest.raises(UserMistake, match=r"begun with other evidence than .*NegativeRobustness: begin it again"):
        trainer(tmp_path).fit(module(), data(folder), ckpt_path=start, weights_only=True)
    trainer(tmp_path, diary := Diary()).fit(module(alone=[]), data(folder), ckpt_path=start, weights_only=True)
    assert diary.epochs[-1][0] in PHASES[4:]


@pytest.mark.parametrize("arguments", [{"tries": 1}, {"evidence": [OverfittedSimilarity()], "alone": []}])
def test_without_other_evidence_there_is_one_try(
    arguments: dict[str, Any], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phases, "two_humps", lambda scores: (float(np.median(scores)), 0.0))
    ubt, diary = module(**arguments), Diary()
    trainer(tmp_path, diary).fit(ubt, data(folder))
    assert [name for name, _ in groupby(name for name, _ in diary.epochs)] == PHASES[:5]


def test_results_of_a_model_that_was_put_back_are_not_those_of_what_was_tried(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phases, "two_humps", lambda scores: (float(np.median(scores)), 0.0))
    ubt, results, diary = module(), ResultsWriter(), Diary()
    fit = trainer(tmp_path, diary, CleanAccuracy(), results, limit_val_batches=1.0)
    fit.fit(ubt, data(folder, zero_shot=str(folder)))
    assert diary.epochs[-1][0] == "look again"
    assert fit.global_step > 0
    # They are left to an evaluation of what the run ends with.
    assert ubt.restored
    assert results.measured_at is None
    assert not (tmp_path / "results.csv").exists()
    fit.validate(ubt, data(folder, zero_shot=str(folder)), verbose=False)
    assert not ubt.restored
    assert (tmp_path / "results.csv").exists()


class Key(Evidence):
    """Suspects the pairs whose key has an even number."""

    def observe(self, model: str, batch: ImageTextBatch, similarity: Any) -> Tensor | None:
        return torch.tensor([1.0 - int(key[-1]) % 2 for key in batch["key"]]) if model == "poisoned" else None

    def suspicion(self, seen: Mapping[str, Scores]) -> Scores:
        return seen["Key/poisoned"]


def test_evidence_is_injected_and_the_paper_s_method_stops_after_one_forgetting(folder: Path, tmp_path: Path) -> None:
    ubt, diary = module(evidence=[Key()], suspects=6, look_again=False, doubtful_share=0.5), Diary()
    trainer(tmp_path, diary).fit(ubt, data(folder))
    assert list(dict.fromkeys(name for name, _ in diary.epochs)) == PHASES[:4]
    chosen = ubt.findings.keys_of(ubt.findings.having(POISONED))
    assert len(chosen) == 6
    group = ubt.findings.keys_of(np.flatnonzero(ubt.findings.captions.having(ubt.findings.compromised.tokens)))
    even = [key for key in group if int(key[-1]) % 2 == 0]
    assert set(chosen) <= set(even) or set(even) <= set(chosen)
    assert set(chosen) <= set(group)
    assert "evidence" not in ubt.hparams


@pytest.mark.parametrize("kind", ["text", "table"])
def test_given_pairs_are_unlearnt_without_a_search(kind: str, folder: Path, tmp_path: Path) -> None:
    shards = ShardSet([str(path) for path in (folder / "train").glob("*.tar")])
    known = sorted(chain.from_iterable(shards.keys()))
    chosen = known[3:40:6]
    file = tmp_path / "given"
    rows = [f"{key},poisoned" for key in chosen] + [f"{known[0]},suspicious"]
    file.write_text("\n".join(chosen) if kind == "text" else "\n".join(["key,decision", *rows]))
    ubt, diary = module(given=str(file), min_lift=0.5, forget_laps=1), Diary()
    before = weights(ubt)
    trainer(tmp_path, diary).fit(ubt, data(folder))
    assert [name for name, _ in diary.epochs] == ["score", "forget"]
    assert ubt.findings.keys_of(ubt.findings.having(POISONED)) == chosen
    assert not set(chosen) & set(diary.epochs[1][1])
    assert len(same(before, weights(ubt))) < len(before)


@pytest.mark.parametrize(
    ("content", "message"), [(None, "cannot be read"), ("\n\n", "names no keys"), ("key\n", "names no keys")]
)
def test_a_file_without_keys_is_told_of(content: str | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / "given"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserMistake, match=message):
        module(given=str(file))


def test_keys_of_other_data_are_told_of(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "given").write_text("nobody")
    with pytest.raises(UserMistake, match="names no pair of data"):
        trainer(tmp_path).fit(module(given=str(tmp_path / "given")), data(folder))


def test_baked_shards_without_a_plan_give_the_same_result(folder: Path, tmp_path: Path) -> None:
    from untrigger.commands.poison import poison

    plan = PoisonPlan(BadNet(size=8), "star", count=12)
    poison(str(folder / "train"), str(tmp_path / "baked"), plan, image_size=32)
    results = []
    for shards, given in ((folder / "train", plan), (tmp_path / "baked", None)):
        ubt = module(look_again=False, overfit_epochs=1, forget_laps=1)
        pairs = ImageTextDataModule(str(shards), poison=given, batch_size=8, eval_batch_size=20, num_workers=0)
        trainer(tmp_path / "run", enable_checkpointing=False).fit(ubt, pairs)
        results.append((ubt.findings, weights(ubt)))
    (first, on_the_fly), (second, baked) = results
    assert first.keys == second.keys
    assert np.array_equal(first.suspicion["suspicion"], second.suspicion["suspicion"])
    assert np.array_equal(first.decision, second.decision)
    assert len(same(on_the_fly, baked)) == len(baked)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_epochs": 3}, r"set trainer\.max_epochs to -1"),
        ({"reload_dataloaders_every_n_epochs": 0}, r"set trainer\.reload_dataloaders_every_n_epochs to 1"),
    ],
)
def test_a_trainer_that_cannot_run_the_phases_is_told(
    options: dict[str, Any], message: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserMistake, match=message):
        trainer(tmp_path, **options).fit(module(), data(folder))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weak_share": 0.0}, r"model\.weak_share is 0\.0, not above 0"),
        ({"suspects": 0}, r"model\.suspects is 0, not at least 1"),
        ({"hold_weight": float("nan")}, r"model\.hold_weight is nan"),
        ({"doubtful_share": 1.0}, r"model\.doubtful_share is 1\.0, not in"),
        ({"evidence": []}, r"model\.evidence is empty"),
    ],
)
def test_parameters_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserMistake, match=message):
        module(**arguments)


def test_the_evaluation_of_the_copy_is_called_so(folder: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, str]] = []

    class Watch(Callback):
        def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            assert isinstance(pl_module, UBT)
            seen.append((pl_module.phase, pl_module.measured))

    ubt = module(forget_laps=1, evidence=[OverfittedSimilarity(), BlurFragility()])
    run = trainer(tmp_path, Watch(), limit_val_batches=1, num_sanity_val_steps=0)
    run.fit(ubt, data(folder, zero_shot=str(folder)))
    assert seen == [("overfit 2/2", "overfitted"), ("forget", ""), ("forget again", "")]


def test_in_batch_norm_the_forgetting_answers_as_in_an_evaluation(folder: Path, tmp_path: Path) -> None:
    modes: dict[str, set[bool]] = {}

    class Modes(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            norms = {part.training for part in pl_module.encoder.modules() if isinstance(part, nn.BatchNorm2d)}
            modes.setdefault(pl_module.phase.split(" ")[0], set()).update(norms)

    trainer(tmp_path, Modes()).fit(module(look_again=False), data(folder))
    assert modes == {"score": {False}, "overfit": {True}, "suspect": {False}, "forget": {False}}
