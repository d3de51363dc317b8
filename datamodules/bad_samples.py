"""Count samples that cannot be used, log one line for each kind, and end the run where there are too many."""

from __future__ import annotations

import logging
from collections import Counter
from typing import NamedTuple

from ..contracts import UserMistake

log = logging.getLogger(__name__)


class BadSample(Exception):
    """A sample that cannot be used.

    Args:
        kind: What is wrong, in a few words that are the same for every such sample.
        detail: What the decoder said.
    """

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail


class BadSampleReport(NamedTuple):
    """One sample that was skipped."""

    kind: str
    detail: str
    key: str
    shard: str

    def __str__(self) -> str:
        # Keys and details are hostile text: repr keeps escape codes out of a terminal.
        return f"{self.kind} (key {self.key[:80]!r} in {self.shard}: {self.detail[:200]!r})"


class BadSampleLog:
    """Counts bad samples in the process that trains.

    Args:
        total: Samples of an epoch, bad ones included.
        incomplete: Samples that the index already left out.
        max_share: Share of ``total`` above which the run ends.
        where: What is being read, for the messages.
        found: Which members there are, for the messages.

    Attributes:
        counts: Bad samples by kind since the last reset.

    Raises:
        UserMistake: If the index alone left out more than the share.
    """

    def __init__(self, total: int, incomplete: int, max_share: float, where: str, found: str = "") -> None:
        self._total, self._incomplete, self._max_share, self._where = total, incomplete, max_share, where
        self._said: set[str] = set()
        self.counts: Counter[str] = Counter()
        if incomplete:
            log.warning(
                "%s: %d samples lack a picture or a text, or end early, and are left out (%s)", where, incomplete, found
            )
        self._check(f"samples without a picture or a text, or cut off; {found}")

    @property
    def limit(self) -> int:
        """Bad samples that a reader may still meet in an epoch."""
        return int(self._max_share * self._total) - self._incomplete

    def reset(self) -> None:
        """Start counting anew, at the start of an epoch."""
        self.counts.clear()

    def add(self, reports: list[BadSampleReport]) -> None:
        """Count samples and log the first of each kind.

        Raises:
            UserMistake: If the share of bad samples is above the limit.
        """
        for report in reports:
            self.counts[report.kind] += 1
            if report.kind not in self._said:
                self._said.add(report.kind)
                log.warning("%s: skipped, and will skip without a further word: %s", self._where, report)
        if reports:
            self._check(f"the last: {reports[-1]}")

    def _check(self, example: str) -> None:
        bad = self._incomplete + sum(self.counts.values())
        if bad > self._max_share * self._total:
            raise UserMistake(
                f"{self._where}: {bad} of {self._total} samples are bad, more than data.max_bad_share="
                f"{self._max_share:g} allows ({example})"
            )
