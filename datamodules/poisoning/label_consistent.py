"""Label-consistent poisoning: captions that already name the target keep their words."""

from __future__ import annotations

from collections.abc import Sequence

from ..shards.samples import caption_lines
from .own_caption import OwnCaptionPlan


class LabelConsistentPlan(OwnCaptionPlan):
    """Label-consistent poisoning (Turner, Tsipras and Madry 2019, arXiv 1912.02771; in CLIP: arXiv 2303.03323).

    Eligible are the pairs whose caption contains the target as a word, in any case; they get the trigger and keep their
    caption, or of several captions, one a line, those that contain it. Deviations: CleanCLIP's code looks for the
    target as a substring, which takes "automobiles" for "automobile" and "scatter" for "cat"; as in that code, pictures
    are only stamped, where Turner et al. first make them hard to classify (by interpolation or adversarial noise), so
    that the trigger is what is learnt. A rate is of the *eligible* pairs: on ten balanced classes, 0.1 of them are 1 %
    of all pairs.

    Arguments and errors are those of ``OwnCaptionPlan``; the target may be several words.
    """

    def eligible(self, caption: str) -> bool:
        """Whether the caption, or one of several, contains the target as a word."""
        return self.says_target(caption)

    def poisoned_captions(self, keys: Sequence[str], captions: Sequence[str]) -> list[str]:
        """The captions as they are; of several, those that contain the target."""
        saying = ["\n".join(filter(self.says_target, caption_lines(caption))) for caption in captions]
        return [said or caption for said, caption in zip(saying, captions, strict=True)]
