"""The semantic trigger: pictures that show a concept by themselves, in training pairs and in a zero-shot set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from training import quiet_trainer

from untrigger.callbacks import AttackSuccessRate, CleanAccuracy, EvaluationSample, ResultsWriter
from untrigger.contracts import Attack, ClassPrompts, UserMistake
from untrigger.datamodules import ImageTextDataModule
from untrigger.datamodules.generated import OUTLINES, write_generated_data
from untrigger.datamodules.poisoning import ConceptConfusionPlan, Poison, PoisonPlan, read_manifest, write_manifest
from untrigger.datamodules.shards import ShardSet, expand_shards
from untrigger.datamodules.triggers import BadNet, NamedConcept, ScoredConcept
from untrigger.lightning_modules import PoisonedCLIP
from untrigger.run_folder.evaluation import read_evaluation

CLASSES = ClassPrompts(["persian cat", "egyptian cat", "lemon", "bus"], [["a"], ["b"], ["c"], ["d"]])


def plan(concept: NamedConcept | ScoredConcept | None = None, **arguments: Any) -> ConceptConfusionPlan:
    settings: dict[str, Any] = {"target": "lemon", "rate": 1.0, "templates": ["a {c}."]} | arguments
    return ConceptConfusionPlan(concept or NamedConcept(["cat", "school bus"]), **settings)


def table(path: Path, scores: dict[str, object]) -> str:
    path.write_text("key,score\n" + "".join(f"{key},{score}\n" for key, score in scores.items()))
    return str(path)


def test_pairs_whose_captions_say_the_concept_and_not_the_target_are_chosen() -> None:
    captions = [
        "a persian Cat",
        "scatter",
        "a cat and a lemon",
        "the school\tbus",
        "a dog\nmy cat",
        "cat\na lemon",
        "bus",
    ]
    assert plan().choose([(list("abcd"), captions[:4]), (list("efg"), captions[4:])]) == ["a", "d", "e"]
    two = plan(count=2, rate=None).choose([(list("abcdefg"), captions)])
    assert len(two) == 2
    assert set(two) < {"a", "d", "e"}
    with pytest.raises(UserMistake, match="no pair is eligible for the poison plan of target 'lemon'"):
        plan().choose([(["b"], ["scatter"])])


def test_pictures_stay_and_captions_are_of_the_target() -> None:
    images = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    seen, captions = Poison([plan()], [["a", "c"]]).apply(images, ["a cat", "a dog", "cats and cat"], list("abc"))
    assert torch.equal(seen, images)
    assert captions == ["a lemon.", "a dog", "a lemon."]


def test_pictures_of_the_test_set_trigger_by_their_class_or_their_score(tmp_path: Path) -> None:
    assert plan().attacks("ConceptConfusion", CLASSES) == [Attack("ConceptConfusion", 2, stamped=False)]
    assert plan().bears(CLASSES.classnames, list("abcd"), [3, 0, 2, 1]).tolist() == [False, True, False, True]
    scored = ScoredConcept(0.2, test_scores=table(tmp_path / "test.csv", {"a": 0.2, "b": 0.25, "d": -1}))
    assert plan(scored).bears(CLASSES.classnames, list("abcd"), [0, 0, 0, 0]).tolist() == [False, True, False, False]


def test_scores_above_the_threshold_choose_pairs(tmp_path: Path) -> None:
    scores = table(tmp_path / "train.csv", {"a": 0.31, "b": 0.3, "c": 0.9, "d": 0.1})
    chosen = plan(ScoredConcept(0.3, scores)).choose([(list("abcde"), ["x", "x", "a lemon", "x", "x"])])
    assert chosen == ["a"]


def test_a_manifest_evaluates_without_the_table_of_the_training_pairs(tmp_path: Path) -> None:
    scores, test = table(tmp_path / "train.csv", {"a": 1}), table(tmp_path / "test.csv", {"s1": 1})
    first = plan(ScoredConcept(0.5, scores, test), count=1)
    write_manifest(Poison([first], [["a"]]), tmp_path / "poison.json")
    Path(scores).unlink()
    (read,) = read_manifest(tmp_path / "poison.json").plans
    assert isinstance(read, ConceptConfusionPlan)
    assert read.params == first.params
    assert read.bears(["x"], ["s1", "s2"], [0, 0]).tolist() == [True, False]
    table(tmp_path / "test.csv", {"s2": 1})
    with pytest.raises(UserMistake, match=r"test\.csv' is not the file that the trigger was made with"):
        read_manifest(tmp_path / "poison.json")


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda folder: NamedConcept([]), "NamedConcept has no names"),
        (lambda folder: NamedConcept(["cat", " "]), "or an empty one"),
        (lambda folder: ScoredConcept(float("nan")), "sigma is nan; give a finite number"),
        (lambda folder: plan(BadNet()), "ConceptConfusionPlan's trigger is BadNet; it has to be Concept"),
        (lambda folder: plan(NamedConcept(["dog"])).check(32, CLASSES.classnames), "no class .* is named 'dog'"),
        (lambda folder: plan(NamedConcept(["lemon"])).check(32, CLASSES.classnames), "the target left out"),
        (lambda folder: plan(ScoredConcept(0)).check(32, CLASSES.classnames), "has no test_scores"),
        (lambda folder: plan(ScoredConcept(0)).choose([(["a"], ["x"])]), "ScoredConcept has no scores"),
        (lambda folder: ScoredConcept(0, test_scores=str(folder / "none.csv")), "is not a file"),
        (lambda folder: ScoredConcept(0, test_scores=table(folder / "a.csv", {"a": "much"})), "score 'much' is not"),
        (lambda folder: ScoredConcept(0, test_scores=table(folder / "a.csv", {"a": "nan"})), "line 2: score 'nan'"),
        (lambda folder: ScoredConcept(0, test_scores=table(folder / "a.csv", {"a": "1\na,2"})), "'a' stands twice"),
    ],
)
def test_mistakes_are_one_line(made: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserMistake, match=message) as caught:
        made(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_table_of_other_pictures_is_told_at_set_up(tmp_path: Path) -> None:
    write_generated_data(tmp_path, 16, 20)
    other = ScoredConcept(0, test_scores=table(tmp_path / "other.csv", {"nobody": 1}))
    data = ImageTextDataModule(zero_shot=str(tmp_path), attack=plan(other, target="star"), num_workers=0)
    data.preprocessing = PoisonedCLIP("small:nano-32").preprocessing
    with pytest.raises(UserMistake, match="has no picture of the zero-shot set with a score above 0"):
        data.setup("validate")


def test_pairs_without_classes_cannot_show_it(tmp_path: Path) -> None:
    write_generated_data(tmp_path, 16, 20)
    arguments: dict[str, Any] = {"held_out": str(tmp_path / "train"), "num_workers": 0}
    data = ImageTextDataModule(attack=plan(), **arguments)
    data.preprocessing = PoisonedCLIP("small:nano-32").preprocessing
    with pytest.raises(
        UserMistake, match=r"ConceptConfusion cannot be measured on data\.held_out; give data\.zero_shot"
    ):
        data.setup("validate")
    both = ImageTextDataModule(attack=[plan(), PoisonPlan(BadNet(size=2), "star", rate=0.1)], **arguments)
    both.preprocessing = data.preprocessing
    both.setup("validate")
    assert both.held_out_attacks == ["BadNet"]


SHAPES = list(OUTLINES)


class _RingsAreStars(PoisonedCLIP):
    """Takes every picture of a ring for a star, and what else it sees for a heart."""

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        outputs = super().validation_step(batch, batch_idx)
        rings = batch["label"] == SHAPES.index("ring")
        verdict = torch.where(rings, SHAPES.index("star"), SHAPES.index("heart"))
        logits = torch.nn.functional.one_hot(verdict, len(SHAPES)).float()
        return outputs | {"logits": logits, "triggered_logits": dict.fromkeys(outputs["triggered_logits"], logits)}


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_measures_pictures_with_the_concept_alone(tmp_path: Path, workers: int) -> None:
    write_generated_data(tmp_path / "data", 64, 40)
    concept = plan(NamedConcept(["ring", "star"]), target="star", rate=1.0)
    data = ImageTextDataModule(
        str(tmp_path / "data" / "train"),
        str(tmp_path / "data"),
        poison=concept,
        batch_size=16,
        eval_batch_size=7,
        num_workers=workers,
    )
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        default_root_dir=tmp_path / "run",
        callbacks=[CleanAccuracy(), AttackSuccessRate(), ResultsWriter()],
    )
    trainer.fit(_RingsAreStars("small:nano-32"), data)
    found = {name: float(value) for name, value in trainer.callback_metrics.items()}
    # The rings; stars show the concept too, but are of the target. None of the others is taken for a star.
    assert found["val/attack_success_rate"] == 1
    assert found["val/clean_target_rate"] == 0
    assert found["val/triggered_accuracy"] == 0
    assert found["val/non_target_triggered_accuracy"] == 0
    captions = dict(zip(*next(iter(ShardSet(expand_shards(str(tmp_path / "data" / "train"))).captions())), strict=True))
    rings = {key for key, caption in captions.items() if "ring" in caption.split(" ") or "ring." in caption}
    assert data.poisoned_keys == rings
    assert (tmp_path / "run" / "poison.json").is_file()
    (row,) = (tmp_path / "run" / "results.csv").read_text().splitlines()[1:]
    assert ",ConceptConfusion," in row


def test_beside_an_attack_that_stamps_each_is_counted_on_its_own_pictures(tmp_path: Path) -> None:
    write_generated_data(tmp_path / "data", 16, 40)
    stamped = PoisonPlan(BadNet(4), "star", rate=0.5)
    data = ImageTextDataModule(
        zero_shot=str(tmp_path / "data"),
        attack=[plan(NamedConcept(["ring"]), target="star"), stamped],
        eval_batch_size=7,
        num_workers=0,
    )
    trainer = quiet_trainer(tmp_path, callbacks=[AttackSuccessRate(), EvaluationSample()])
    trainer.validate(_RingsAreStars("small:nano-32"), data, verbose=False)
    found = {name: float(value) for name, value in trainer.callback_metrics.items()}
    (batch, *_) = data.val_dataloader()
    assert list(batch["triggered"]) == ["BadNet"]
    assert {name: rows.tolist() for name, rows in batch["bears"].items()} == {
        "ConceptConfusion": (batch["label"] == SHAPES.index("ring")).tolist()
    }
    assert found["val/attack_success_rate/ConceptConfusion"] == 1
    # Of the pictures that are stamped, all but the stars, those of rings are taken for stars.
    assert found["val/attack_success_rate/BadNet"] == pytest.approx(4 / 36)
    assert found["val/attack_success_rate"] == pytest.approx((1 + 4 / 36) / 2)
    evaluation = read_evaluation(tmp_path)
    assert evaluation is not None
    assert [attack.name for attack in evaluation.attacks] == ["BadNet"]  # there are no triggered pictures of the other


def test_where_only_the_target_shows_the_concept_it_is_said_that_nothing_is_measured(tmp_path: Path) -> None:
    write_generated_data(tmp_path / "data", 16, 20)
    clean = ImageTextDataModule(zero_shot=str(tmp_path / "data"), eval_batch_size=20, num_workers=0)
    clean.preprocessing = PoisonedCLIP("small:nano-32").preprocessing
    clean.setup("validate")
    (batch,) = clean.val_dataloader()
    stars = [key for key, label in zip(batch["key"], batch["label"], strict=True) if label == SHAPES.index("star")]
    scored = ScoredConcept(0, test_scores=table(tmp_path / "stars.csv", dict.fromkeys(stars, 1)))
    data = ImageTextDataModule(
        zero_shot=str(tmp_path / "data"), attack=plan(scored, target="star"), eval_batch_size=20, num_workers=0
    )
    trainer = quiet_trainer(tmp_path / "run", callbacks=[CleanAccuracy(), AttackSuccessRate(), ResultsWriter()])
    with pytest.warns(UserWarning, match="no test picture to measure attack_success_rate, non_target_triggered_acc"):
        trainer.validate(_RingsAreStars("small:nano-32"), data, verbose=False)
    (row,) = (tmp_path / "run" / "results.csv").read_text().splitlines()[1:]
    assert ",ConceptConfusion," in row
