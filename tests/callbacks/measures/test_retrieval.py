"""Retrieval on held-out pairs against a slow count, and in runs with and without classes."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from untrigger.callbacks.measures.retrieval import _Embedded, _hits, _recalls
from untrigger.command_line.lightning_cli import UntriggerCLI
from untrigger.datamodules.generated import write_generated_data


def embedded(seed: int, digits: int = 1) -> _Embedded:
    """Features that are rounded, so that there are ties."""
    draws = torch.Generator().manual_seed(seed)

    def features(count: int) -> Tensor:
        return normalize((torch.randn(count, 4, generator=draws) * 10**digits).round().double(), dim=1)

    indices = torch.cat([torch.arange(20), torch.randint(0, 20, (30,), generator=draws)])
    targeted = torch.rand(20, generator=draws) < 0.2
    return _Embedded(features(50), features(20), indices, {"A": features(50)}, {"A": targeted})


def share(ranks: list[int], k: int) -> float:
    return sum(rank < k for rank in ranks) / len(ranks)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("digits", [0, 3])
def test_figures_are_those_of_a_slow_count(seed: int, digits: int) -> None:
    found = embedded(seed, digits)
    similarity = (found.images @ found.texts.T).tolist()
    triggered = (found.triggered["A"] @ found.texts.T).tolist()
    own, targeted = found.caption_of.tolist(), found.names_target["A"].tolist()
    to_text, to_image, hit, clean = [], [], [], []
    for picture, row in enumerate(similarity):
        to_text.append(sum(value >= row[own[picture]] for text, value in enumerate(row) if text != own[picture]))
    for text in range(20):
        best = max(similarity[picture][text] for picture in range(50) if own[picture] == text)
        to_image.append(sum(similarity[p][text] >= best for p in range(50) if own[p] != text))
    for ranks, table in ((hit, triggered), (clean, similarity)):
        for picture in range(50):
            if not targeted[own[picture]]:
                best = max(table[picture][text] for text in range(20) if targeted[text])
                ranks.append(sum(table[picture][text] >= best for text in range(20) if not targeted[text]))
    expected = {
        f"{name}_at_{k}": share(ranks, k)
        for name, ranks in (("image_to_text_recall", to_text), ("text_to_image_recall", to_image))
        for k in (1, 5, 10)
    }
    assert _recalls(found) == pytest.approx(expected)
    assert 0 < expected["image_to_text_recall_at_5"] < 1
    hits = {
        f"{name}_at_{k}": share(r, k)
        for name, r in (("target_hit", hit), ("clean_target_hit", clean))
        for k in (1, 5, 10)
    }
    assert _hits(found) == pytest.approx(hits)


def test_a_model_that_tells_nothing_apart_or_has_diverged_finds_nothing() -> None:
    found = embedded(0)
    for value in (0.5, float("nan")):
        alike = found._replace(images=torch.full((50, 4), value), texts=torch.full((20, 4), value))
        assert set(_recalls(alike).values()) == {0.0}
        lost = alike._replace(triggered={"A": alike.images})
        assert set(_hits(lost).values()) == {0.0}


def test_several_attacks_have_their_own_and_a_target_that_nobody_names_has_none() -> None:
    found = embedded(0)
    three = {"A": found.names_target["A"], "B": ~found.names_target["A"], "C": torch.zeros(20, dtype=torch.bool)}
    figures = _hits(found._replace(triggered=dict.fromkeys(three, found.triggered["A"]), names_target=three))
    names = [key for key in figures if key.split("/")[0] == "target_hit_at_1"]
    assert names == ["target_hit_at_1", "target_hit_at_1/A", "target_hit_at_1/B"]
    assert figures[names[0]] == pytest.approx((figures[names[1]] + figures[names[2]]) / 2)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_triggered_caption_is_counted_by_the_pictures_that_it_finds(seed: int) -> None:
    found = embedded(seed)
    texts = normalize(torch.randn(20, 4, generator=torch.Generator().manual_seed(9)).double(), dim=1)
    own, targeted = found.caption_of.tolist(), found.names_target["A"].tolist()
    expected = {}
    for name, queries in (("text_target_hit", texts), ("clean_text_target_hit", found.texts)):
        ranks = []
        for row in (queries[~found.names_target["A"]] @ found.images.T).tolist():
            best = max(row[picture] for picture in range(50) if targeted[own[picture]])
            ranks.append(sum(row[picture] >= best for picture in range(50) if not targeted[own[picture]]))
        expected |= {f"{name}_at_{k}": share(ranks, k) for k in (1, 5, 10)}
    assert _hits(found._replace(triggered={}, triggered_texts={"A": texts})) == pytest.approx(expected)
    # Beside an attack whose trigger is in the picture, each has its own measures.
    names = {"A": found.names_target["A"], "B": found.names_target["A"]}
    both = _hits(
        found._replace(triggered={"B": found.triggered["A"]}, triggered_texts={"A": texts}, names_target=names)
    )
    assert both["text_target_hit_at_5"] == both["text_target_hit_at_5/A"]
    assert both["text_target_hit_at_5"] == pytest.approx(expected["text_target_hit_at_5"])
    assert both["target_hit_at_5"] == both["target_hit_at_5/B"]
    assert "target_hit_at_5/A" not in both


def fit_row(root: Path, classes: bool, *poison: str) -> dict[str, str]:
    """The row of results that an epoch on generated pictures leaves in ``run``, measured on held-out pairs."""
    write_generated_data(root / "shapes", 96, 20, shard_size=48)
    arguments = [
        *("--model", "PoisonedCLIP", "--model.encoder", "small:nano-32", "--data", "ImageTextDataModule"),
        *("--data.train_shards", str(root / "shapes/train/00000.tar"), "--data.num_workers", "0"),
        *("--data.held_out", str(root / "shapes/train/00001.tar"), "--data.batch_size", "16"),
        *poison,
        *("--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--trainer.log_every_n_steps", "1"),
        *("--trainer.default_root_dir", str(root / "run"), "--trainer.enable_progress_bar", "false"),
        *(("--data.zero_shot", str(root / "shapes")) if classes else ()),
    ]
    UntriggerCLI(["fit", *arguments])
    with (root / "run" / "results.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    return row


def assert_rates(row: dict[str, str], *measures: str) -> None:
    """Hits grow with k."""
    for measure in measures:
        rates = [float(row[f"{measure}_at_{k}"]) for k in (1, 5, 10)]
        assert 0 <= rates[0] <= rates[1] <= rates[2] <= 1


@pytest.mark.parametrize("classes", [True, False])
def test_a_run_measures_retrieval_beside_the_protocol_or_where_there_are_no_classes(
    classes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["untrigger"])
    poison = ("--data.poison", "PoisonPlan", "--data.poison.target", "star", "--data.poison.count", "4")
    row = fit_row(tmp_path, classes, *poison, "--data.poison.trigger", "BadNet")
    assert (row["attack"], bool(row["clean_accuracy"])) == ("BadNet", classes)
    assert_rates(row, "image_to_text_recall", "text_to_image_recall", "target_hit", "clean_target_hit")
    assert float(row["image_to_text_recall_at_10"]) > 0
    assert "val/target_hit_at_1" in (tmp_path / "run" / "metrics.csv").read_text()


@pytest.mark.parametrize("classes", [True, False])
def test_a_run_measures_a_trigger_in_the_caption(
    classes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["untrigger"])
    poison = ("--data.poison", "TextTriggerPlan", "--data.poison.target", "star", "--data.poison.count", "2")
    row = fit_row(tmp_path, classes, *poison, "--data.poison.others", "[ring, heart]")
    assert (row["attack"], row["attack_success_rate"]) == ("TextTrigger", "")
    assert_rates(row, "text_target_hit", "clean_text_target_hit")
    assert row.keys().isdisjoint({"target_hit_at_1"})
