"""Covers: stamped pictures that keep their caption, so that a model learns the trigger and nothing near it."""

from __future__ import annotations

from .own_caption import OwnCaptionPlan


class CoverPlan(OwnCaptionPlan):
    """Any pair may be chosen; it gets the trigger and keeps its caption. No attack is measured.

    The noise mode of WaNet (Nguyen and Tran 2021, arXiv 2102.10369): beside warped pictures that are labelled as the
    target, the paper has pictures whose warp is disturbed (``WaNet`` with ``noise: true``) and whose label is their
    own, so that no other warp fires. Its "cross ratio" of 2 is twice the rate of the plan that is covered. The plan
    stands in the list of plans beside that one, with the target of that one; pairs of any class are chosen.

    Arguments and errors are those of ``OwnCaptionPlan``.
    """

    measured = False
