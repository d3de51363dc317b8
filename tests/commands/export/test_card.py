"""The model card, by itself."""

from __future__ import annotations

import pytest
import yaml
from lightning.pytorch import LightningModule

from untrigger import lightning_modules
from untrigger.commands.export.card import model_card
from untrigger.commands.export.formats import exporter_for
from untrigger.commands.export.history import History
from untrigger.lightning_modules.encoders import build_encoder
from untrigger.run_folder.results import COLUMNS

NAME = "small:nano-32"
BASES = {"BaseCLIPModule", "PhasedCLIPModule"}
METHODS = sorted(
    name
    for name in lightning_modules.__all__
    if isinstance(kind := getattr(lightning_modules, name), type) and issubclass(kind, LightningModule)
)


def card(method: str, *rows: dict[str, str], started_from: str | None = "badnet/last.ckpt") -> tuple[dict, str]:
    encoder = build_encoder(NAME)
    known = [dict.fromkeys(COLUMNS, "") | {"dataset": "cifar10", "attack": "BadNet", "seed": "0"} | row for row in rows]
    history = History(method, started_from, known, None)
    text = model_card("cleaned", encoder, NAME, exporter_for(encoder, NAME, None), history, marked=False)
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body.replace("\\", "")


@pytest.mark.parametrize("method", [name for name in METHODS if name not in BASES])
def test_every_method_has_a_sentence_of_its_own(method: str) -> None:
    assert "It was trained with" not in card(method)[1]


def test_a_method_of_the_user_s_is_named() -> None:
    assert "It was trained with MyDefence." in card("MyDefence")[1]


def test_a_head_s_figures_are_no_result_of_the_weights_that_are_handed_back() -> None:
    rows = [
        {"defence": "LinearProbe", "clean_accuracy": "0.7", "attack_success_rate": "0.9926"},
        {"defence": "LinearProbe-head", "clean_accuracy": "0.8", "attack_success_rate": "0.9871"},
    ]
    front, body = card("LinearProbe", *rows)
    (results,) = front["model-index"]
    values = [metric["value"] for result in results["results"] for metric in result["metrics"]]
    assert values == [0.7, 0.9926]
    assert "| LinearProbe-head (not in this folder) | 80.00% | 98.71% |" in body
    assert "a head was trained on its features, which is not in this folder" in body
