from __future__ import annotations

import torch

from untrigger.lightning_modules.phased.rows import _WAITING, PassRows


def test_rows_of_a_pass_come_back_in_their_order_whatever_was_saved_between() -> None:
    batches = [torch.full((2, 3), float(number)) for number in range(2 * _WAITING + 5)]
    rows, resumed = PassRows(), PassRows()
    assert rows.gather().shape == (0, 0)
    for number, batch in enumerate(batches):
        rows.add(batch)
        if number == _WAITING + 2:
            resumed.load_state_dict(rows.state_dict(), 0)
        if number > _WAITING + 2:
            resumed.add(batch)
    torch.testing.assert_close(rows.gather(), torch.cat(batches))
    torch.testing.assert_close(resumed.gather(), torch.cat(batches))
    resumed.load_state_dict(rows.state_dict(), 1)  # there was no such rank
    assert resumed.gather().shape == (0, 0)
