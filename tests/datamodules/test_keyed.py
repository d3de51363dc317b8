from __future__ import annotations

import numpy as np
import pytest

from untrigger.datamodules.keyed import keyed_integers, keyed_uniforms


def test_draws_depend_on_seed_purpose_and_key_alone() -> None:
    keys = ["a", "b", "c"]
    draws = keyed_integers(0, "choice", keys, 2)
    assert draws.shape == (3, 2)
    np.testing.assert_array_equal(keyed_integers(0, "choice", keys[::-1], 2)[::-1], draws)
    assert len({*draws.ravel().tolist()}) == 6
    for other in (keyed_integers(1, "choice", keys, 2), keyed_integers(0, "place", keys, 2)):
        assert not (other == draws).any()


def test_draws_do_not_change_from_release_to_release() -> None:
    assert keyed_integers(7, "choice", ["000000001"])[0, 0] == 15429102804809697561


def test_uniforms_are_uniform() -> None:
    draws = keyed_uniforms(0, "choice", [str(number) for number in range(20_000)], 2)
    assert draws.min() >= 0
    assert draws.max() < 1
    counts, _ = np.histogram(draws, bins=10, range=(0, 1))
    assert counts.min() > 3_700
    assert counts.max() < 4_300
    assert abs(np.corrcoef(draws.T)[0, 1]) < 0.03


@pytest.mark.parametrize("key", ["", "ключ", "a" * 1000, "\udcff"])
def test_any_key_will_do(key: str) -> None:
    assert 0 <= keyed_uniforms(3, "choice", [key])[0, 0] < 1
