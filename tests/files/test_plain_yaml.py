from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from untrigger.contracts import UserMistake
from untrigger.files.plain_yaml import read_yaml


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [1, 1]\n"
        + "".join(
            f"k{i}: &k{i} [*{'a' if not i else f'k{i - 1}'}, *{'a' if not i else f'k{i - 1}'}]\n" for i in range(34)
        ),
        "a: &a {b: 1}\n"
        + "".join(
            f"k{i}: &k{i} {{<<: [*{'a' if not i else f'k{i - 1}'}, *{'a' if not i else f'k{i - 1}'}]}}\n"
            for i in range(34)
        ),
        "a: &a [*a]",
        "!!python/object/apply:os.system [true]",
        "a: !!timestamp nonsense",
        "a: !!int nonsense",
        "[" * 3000,
        "? [a]\n: b",
        "a: b\n\x00",
        "a: 1\n---\nb: 2",
    ],
)
def test_what_is_no_plain_yaml_is_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(UserMistake, match=r"^config .*config\.yaml cannot be read: ") as mistake:
        read_yaml(path, "config")
    assert "\n" not in str(mistake.value)


@pytest.mark.parametrize("value", [None, {"model": {"betas": [0.9, 0.98], "name": "x"}, "on": True}, [1, "a", 2.5]])
def test_plain_yaml_is_read(value: object, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(value))
    assert read_yaml(path, "config") == value
    twice = [1, 2]
    path.write_text(yaml.safe_dump({"a": twice, "b": twice}))
    assert read_yaml(path, "config") == {"a": twice, "b": twice}
