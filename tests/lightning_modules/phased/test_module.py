from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor, nn

from untrigger.contracts import ImageTextBatch, PhasedModule, UserMistake
from untrigger.datamodules import ImageTextDataModule
from untrigger.datamodules.generated import write_generated_data
from untrigger.lightning_modules import Phase, PhasedCLIPModule, PoisonedCLIP, phase_table
from untrigger.lightning_modules.losses import ContrastiveLoss
from untrigger.lightning_modules.optimisation import warmup_cosine

EPOCHS = ["score", "learn", "learn", "verify", "learn", "learn", "verify"]


class Scoring(Phase["Loop"]):
    """Notes what the model makes of every pair."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.seen: dict[str, float] = {}

    def begin(self, module: Loop) -> None:
        self.seen = {}

    def select(self, module: Loop, epoch: int) -> None:
        module.data.select(None, in_order=True)

    def step(self, module: Loop, batch: ImageTextBatch, batch_idx: int) -> None:
        with module.evaluating():
            images, texts = module(batch)
        self.seen |= dict(zip(batch["key"], (images * texts).sum(dim=1).tolist(), strict=True))

    def end(self, module: Loop) -> str | None:
        module.found.append(dict(self.seen))
        if self.name == "score":
            return "learn"
        return module.successors[module.visit]

    def state_dict(self) -> dict[str, Any]:
        return {"seen": dict(self.seen)}

    def load_state_dict(self, state_dict: dict[str, Any], rank: int) -> None:
        self.seen = dict(state_dict["seen"])


class Learn(Phase["Loop"]):
    """Learns the pairs that were found least similar, from the initial weights on, with a schedule of its own."""

    learning = ("image",)
    evaluated = True

    def __init__(self) -> None:
        super().__init__("learn", epochs=2, lr=1e-2)
        self.loss = ContrastiveLoss()
        self.begun = 0

    def begin(self, module: Loop) -> None:
        self.begun += 1
        module.restore()

    def select(self, module: Loop, epoch: int) -> None:
        found = module.found[-1]
        module.data.select(sorted(found, key=found.__getitem__)[:16])

    def step(self, module: Loop, batch: ImageTextBatch, batch_idx: int) -> Tensor:
        loss: Tensor = self.loss(*module(batch), module.inverse_temperature)
        module.log_parts(contrastive=loss)
        return loss * self.begun

    def learning_rate(self, module: Loop, step: int) -> float:
        return self.lr * warmup_cosine(step, 1, 4)

    def end(self, module: Loop) -> str:
        return "verify"

    def state_dict(self) -> dict[str, Any]:
        return {"begun": self.begun}

    def load_state_dict(self, state_dict: dict[str, Any], rank: int) -> None:
        self.begun = state_dict["begun"]


class Loop(PhasedCLIPModule):
    """Three phases, of which two are entered twice."""

    def __init__(self, encoder: str, successors: list[str | None], **kwargs: Any) -> None:
        super().__init__(encoder, **kwargs)
        self.phases = phase_table(Scoring("score"), Learn(), Scoring("verify"))
        self.successors = successors
        self.found: list[dict[str, float]] = []
        self.ends = 0

    def concluded(self) -> None:
        self.ends += 1
        assert self.running is None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["found"] = [dict(each) for each in self.found]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.found = checkpoint["found"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("data")
    write_generated_data(folder, 24, 4)
    return folder


def loop(*successors: str | None) -> Loop:
    """The module, with what its verification names as its successor at each visit."""
    seed_everything(0)
    return Loop("small:nano-32", list(successors or ("learn", None)))


def data(folder: Path, **arguments: Any) -> ImageTextDataModule:
    return ImageTextDataModule(str(folder / "train"), batch_size=8, eval_batch_size=12, num_workers=0, **arguments)


def trainer(root: Path, *callbacks: Callback, **arguments: Any) -> Trainer:
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "max_epochs": -1,
        "reload_dataloaders_every_n_epochs": 1,
        "limit_val_batches": 0,
        "logger": False,
        "enable_checkpointing": any(isinstance(callback, Checkpoint) for callback in callbacks),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": root,
    }
    return Trainer(callbacks=list(callbacks), **(defaults | arguments))


class Moment(NamedTuple):
    """When a checkpoint is written."""

    epoch: int
    name: str


class Batch(NamedTuple):
    """What a batch was met by."""

    phase: str
    visit: int
    keys: list[str]
    rates: list[float]
    losses: list[str]


class Diary(Callback):
    """Notes every batch, and the weights and the optimiser's state that each phase is entered with."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.phases: list[str] = []
        self.entered: list[tuple[dict[str, Tensor], int]] = []
        self.norms: set[bool] = set()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Loop)
        assert pl_module.running is not None
        self.phases.append(pl_module.running.name)
        self.entered.append((weights(pl_module), len(trainer.optimizers[0].state)))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Loop)
        assert pl_module.running is not None
        rates = sorted({group["lr"] for group in trainer.optimizers[0].param_groups})
        name, losses = pl_module.running.name, list(pl_module.losses) if pl_module.running.learning else []
        self.batches.append(Batch(name, pl_module.visit, list(batch["key"]), rates, losses))
        self.norms |= {part.training for part in pl_module.modules() if isinstance(part, nn.BatchNorm2d)}


class Everywhere(Checkpoint):
    """Writes a checkpoint after the first and the last batch of every epoch, and behind it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, moment: Moment) -> Path:
        return self.folder / f"{moment.epoch}-{moment.name}.ckpt"

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        name = "last batch" if trainer.is_last_batch else "first batch"
        trainer.save_checkpoint(self.path(Moment(trainer.current_epoch, name)))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.save_checkpoint(self.path(Moment(trainer.current_epoch, "end")))


def weights(module: LightningModule) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=0)


class Run(NamedTuple):
    """A run that was not interrupted."""

    module: Loop
    diary: Diary
    checkpoints: Everywhere
    began: dict[str, Tensor]


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("run")
    module, diary, checkpoints = loop(), Diary(), Everywhere(root)
    began = weights(module)
    trainer(root, diary, checkpoints).fit(module, data(folder))
    return Run(module, diary, checkpoints, began)


def test_each_phase_names_its_successor_and_may_name_an_earlier_one(run: Run) -> None:
    assert run.diary.phases == EPOCHS
    assert [batch.visit for batch in run.diary.batches if batch.phase == "verify"] == [0, 0, 1, 1]
    assert run.module.ends == 1
    assert isinstance(run.module, PhasedModule)
    assert (run.module.phase, run.module.running, run.module.measured) == ("done", None, "")
    everything = sorted(run.module.found[0])
    assert len(everything) == 24
    scored = [sorted(found) for found in run.module.found]
    assert scored == [everything] * 3
    for visit, found in enumerate(run.module.found[:2]):
        chosen = {key for batch in run.diary.batches if batch[:2] == ("learn", visit) for key in batch.keys}
        assert chosen == set(sorted(found, key=found.__getitem__)[:16])


def test_each_visit_has_an_optimiser_and_a_schedule_of_its_own(run: Run) -> None:
    learnt = [batch for batch in run.diary.batches if batch.phase == "learn"]
    assert [max(batch.rates) for batch in learnt] == [1e-2 * warmup_cosine(step, 1, 4) for step in range(4)] * 2
    assert all(min(batch.rates) == 0 for batch in learnt)
    assert {tuple(batch.losses) for batch in learnt} == {("loss", "contrastive")}
    assert [bool(state) for _, state in run.diary.entered] == [False, False, True, False, False, True, False]


def test_only_what_learns_moves_and_the_initial_weights_come_back(run: Run) -> None:
    module, began = run.module, run.began
    for epoch in (0, 1, 4):
        assert_same(run.diary.entered[epoch][0], began)
    moved = {name for name, tensor in weights(module).items() if not torch.equal(tensor, began[name])}
    assert moved == {f"encoder.visual.{name}" for name, _ in module.encoder.image_tower.named_parameters()}
    assert run.diary.norms == {False}  # statistics of batch norm are kept, too


@pytest.mark.parametrize("name", ["first batch", "last batch", "end"])
@pytest.mark.parametrize("epoch", range(len(EPOCHS)))
def test_it_is_resumed_from_any_moment_to_the_same_end(
    epoch: int, name: str, run: Run, folder: Path, tmp_path: Path
) -> None:
    moment = run.checkpoints.path(Moment(epoch, name))
    module, diary = loop(), Diary()
    trainer(tmp_path, diary).fit(module, data(folder), ckpt_path=moment, weights_only=True)
    assert_same(weights(module), weights(run.module))
    assert module.found == run.module.found
    assert module.ends == (moment.stem != "6-end")
    due = len(run.diary.batches) - 2 * epoch - (1 if name == "first batch" else 2)
    assert diary.batches == (run.diary.batches[-due:] if due else [])


def test_a_finished_checkpoint_holds_no_second_model(run: Run) -> None:
    middle, end = [
        torch.load(run.checkpoints.path(Moment(epoch, "end")), weights_only=True)["phased"] for epoch in (3, 6)
    ]
    assert set(middle["initial"]) == {name.removeprefix("encoder.") for name in run.began}
    assert middle["progress"]["phase"] == "learn"
    assert middle["progress"]["visits"] == {"score": 1, "learn": 2, "verify": 1}
    assert end["initial"] == {}
    assert end["progress"]["done"]


def test_an_evaluation_comes_where_a_phase_asks_for_one(folder: Path, tmp_path: Path) -> None:
    evaluated: list[tuple[str, bool]] = []

    class Watch(Callback):
        def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            assert isinstance(pl_module, Loop)
            evaluated.append((pl_module.phase, pl_module.restored))

        def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            assert isinstance(pl_module, Loop)
            assert not pl_module.restored

    module = loop(None)
    fit = trainer(tmp_path, Watch(), limit_val_batches=1, num_sanity_val_steps=0, check_val_every_n_epoch=3)
    fit.fit(module, data(folder, zero_shot=str(folder)))
    assert evaluated == [("learn 2/2", True)]
    assert fit.check_val_every_n_epoch == 3


def test_phases_and_their_seconds_are_logged(folder: Path, tmp_path: Path) -> None:
    from lightning.pytorch.loggers import CSVLogger

    module = loop(None)
    logger = CSVLogger(tmp_path, "", "")
    trainer(tmp_path, logger=logger, log_every_n_steps=1).fit(module, data(folder))
    columns = (tmp_path / "metrics.csv").read_text().splitlines()[0].split(",")
    logged = {"loop/phase", "loop/seconds/score", "loop/seconds/learn", "loop/seconds/verify", "train/contrastive"}
    assert logged <= set(columns)


def test_a_successor_that_there_is_not_is_reported(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"phase 'verify' names 'nothing' as its successor: none of \['score', "):
        trainer(tmp_path).fit(loop("nothing"), data(folder))


class Nobody(Scoring):
    def select(self, module: Loop, epoch: int) -> None:
        module.data.select([], in_order=True)


@pytest.mark.filterwarnings("ignore:Total length of `.*Loader` across ranks is zero")
@pytest.mark.parametrize("first", [True, False])
def test_a_phase_that_streams_nothing_does_not_end_the_run_silently(first: bool, folder: Path, tmp_path: Path) -> None:
    module = loop()
    module.phases = phase_table(*([] if first else [Scoring("score")]), Nobody("score" if first else "learn"))
    with pytest.raises(RuntimeError, match="of Loop has selected no batch"):
        trainer(tmp_path).fit(module, data(folder))


def test_a_module_without_phases_is_reported(folder: Path, tmp_path: Path) -> None:
    module = loop()
    module.phases = {}
    with pytest.raises(NotImplementedError, match="Loop has no phases"):
        trainer(tmp_path).fit(module, data(folder))


def test_a_table_holds_phases_that_can_run() -> None:
    with pytest.raises(ValueError, match="a run needs a phase"):
        phase_table()
    with pytest.raises(ValueError, match="two phases have the same name: score, score"):
        phase_table(Scoring("score"), Scoring("score"))
    without, wrong = Scoring("score"), Scoring("score")
    without.epochs, wrong.learning, wrong.lr = 0, ("image", "text"), 1e-3
    with pytest.raises(ValueError, match="score has 0 epochs"):
        phase_table(without)
    with pytest.raises(ValueError, match="score lets text learn"):
        phase_table(wrong)
    wrong.learning, wrong.lr = ("image",), 0.0
    with pytest.raises(ValueError, match="score lets image learn at a rate of 0: give it lr"):
        phase_table(wrong)


def test_a_loss_from_which_nothing_learns_is_told(folder: Path, tmp_path: Path) -> None:
    module = loop()
    module.phases["learn"].learning = ()
    with pytest.raises(RuntimeError, match="the phase 'learn' of Loop gives a loss, and nothing learns"):
        trainer(tmp_path).fit(module, data(folder))


def test_a_checkpoint_of_another_kind_or_with_other_phases_is_reported(run: Run, folder: Path, tmp_path: Path) -> None:
    other = PoisonedCLIP("small:nano-32")
    fit = trainer(tmp_path)
    fit.strategy.connect(other)
    fit.save_checkpoint(tmp_path / "other.ckpt")
    with pytest.raises(UserMistake, match=r"of no run of Loop's: to start from its weights, give it as model\.init_fr"):
        trainer(tmp_path).fit(loop(), data(folder), ckpt_path=tmp_path / "other.ckpt", weights_only=True)
    fewer = loop()
    del fewer.phases["verify"]
    path = run.checkpoints.path(Moment(1, "end"))
    with pytest.raises(UserMistake, match=r"begun with other phases \(verify beside score, learn\)"):
        trainer(tmp_path).fit(fewer, data(folder), ckpt_path=path, weights_only=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_epochs": 3}, r"Loop ends by itself: set trainer\.max_epochs to -1"),
        ({"min_epochs": 30}, r"Loop ends by itself: leave trainer\.min_epochs and trainer\.min_steps out"),
        ({"min_steps": 3}, r"Loop ends by itself: leave trainer\.min_epochs and trainer\.min_steps out"),
        ({"reload_dataloaders_every_n_epochs": 0}, r"Loop streams other pairs in each phase"),
    ],
)
def test_a_trainer_that_cannot_run_the_phases_is_reported(
    options: dict[str, Any], message: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserMistake, match=message):
        trainer(tmp_path, **options).fit(loop(), data(folder))
