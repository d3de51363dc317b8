from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from untrigger import cli
from untrigger.commands.poison.command import poison
from untrigger.contracts import UserMistake
from untrigger.datamodules import BadNet, PoisonPlan
from untrigger.datamodules.generated import write_generated_data


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    write_generated_data(tmp_path / "data", 40, 10, image_size=48, shard_size=40)
    return tmp_path / "data" / "train"


def test_preview_writes_a_contact_sheet_and_nothing_else(
    clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plans = [
        {"class_path": "PoisonPlan", "init_args": {"target": "star", "count": 9, "trigger": trigger}}
        for trigger in (
            {"class_path": "BadNet", "init_args": {"size": 8, "pattern": "solid", "place": "top_left"}},
            {"class_path": "SIG"},
        )
    ]
    plans[1]["class_path"] = "CoverPlan"
    (tmp_path / "plans.yaml").write_text(yaml.safe_dump({"plan": plans}))
    out = tmp_path / "out"
    cli.run(
        [
            *("poison", "--config", str(tmp_path / "plans.yaml"), "--shards", str(clean)),
            *("--out", str(out), "--image_size", "32", "--preview"),
        ]
    )
    assert [path.name for path in out.iterdir()] == ["preview.png"]
    reported = capsys.readouterr().out
    assert "1. BadNet" in reported
    assert "2. SIG (cover)" in reported
    sheet = np.asarray(Image.open(out / "preview.png").convert("RGB"))
    # Eight pictures of 32 pixels, four dots a pixel, in five rows; the first row has captions of some lines below.
    captions = sheet.shape[0] - 5 * (30 + 128 + 6)
    assert captions in (6 + 16, 6 + 2 * 16, 6 + 3 * 16)
    top, left = 30 + 128 + 6 + captions + 30, 6
    assert (sheet[top : top + 32, left : left + 32] == (255, 255, 0)).all()
    assert (sheet[top + 40 : top + 128, left : left + 128] != (255, 255, 0)).any()
    # The sheet does not stand in the way of the shards.
    poison(str(clean), str(out), PoisonPlan(BadNet(4), "star", count=3), 32)
    assert (out / "poison.json").is_file()


def test_preview_says_where_nothing_can_be_shown(tmp_path: Path, write_pairs: object) -> None:
    (path,) = write_pairs([3], broken=range(3))  # type: ignore[operator]
    with pytest.raises(UserMistake, match="none of the chosen pairs has a picture"):
        poison(path, str(tmp_path / "out"), PoisonPlan(BadNet(4), "star", count=2), 32, preview=True)
