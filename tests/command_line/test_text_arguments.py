from __future__ import annotations

import os

import pytest

from untrigger.cli import run
from untrigger.contracts import UserMistake

LATIN = os.fsdecode(b"tr\xe9/0.tar")


@pytest.mark.parametrize(
    "arguments",
    [
        ("fit", "--data.train_shards", LATIN),
        ("validate", "--config", "x.yaml", f"--data.zero_shot={LATIN}"),
        ("check", "model.pt", LATIN),
        ("export", LATIN, "out"),
        ("shards", "folder", LATIN, "out"),
    ],
)
def test_a_name_that_is_no_text_is_told_before_anything_starts(arguments: tuple[str, ...]) -> None:
    with pytest.raises(UserMistake, match=r"b'.*tr\\xe9/0\.tar' is not UTF-8, which a config has to be: rename"):
        run(list(arguments))


def test_where_no_config_is_made_of_it_a_name_may_be_any() -> None:
    with pytest.raises(UserMistake, match="does not exist"):
        run(["shards", "sizes", LATIN, "sizes.json"])
