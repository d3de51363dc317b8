"""UBT's phases but for the forgetting: score, overfit, suspect, and look again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import compress
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from ...all_ranks import all_ranks
from ...contracts import ImageTextBatch, UserMistake
from ..losses import ContrastiveLoss
from ..phased import Phase
from .captions import CaptionTokens
from .evidence import Evidence
from .findings import BENIGN, POISONED, Suspects, divide, most, sample
from .localisation import CompromisedTokens, compromised_tokens, similarity_drops, words_of
from .scores import Scores, robust_z, two_humps
from .scoring import Scoring

if TYPE_CHECKING:
    from ..ubt import UBT


_BESIDE = 0.5
"""A token that carries a poisoned caption beside others has this share of the greatest drop at least."""


class Naming(NamedTuple):
    """How the compromised tokens of some pairs are named."""

    pairs: int
    """In how many of them, at most, tokens are masked one at a time."""
    min_share: float
    """Least share of these that a compromised token carries."""
    min_lift: float
    """How many times its share of all captions that is, at least."""


class Score(Scoring):
    """Image-text similarity of every pair under the poisoned model, and the tokens of every caption.

    Args:
        tokenize: The encoder's.
    """

    def __init__(self, tokenize: Callable[[Sequence[str]], Tensor]) -> None:
        super().__init__("score", "poisoned")
        self._tokenize = tokenize
        self._captions = CaptionTokens(tokenize)

    def begin(self, ubt: UBT) -> None:
        """Start with nothing."""
        super().begin(ubt)
        self._captions = CaptionTokens(self._tokenize)

    def step(self, ubt: UBT, batch: ImageTextBatch, batch_idx: int) -> None:
        """Note similarities and tokens."""
        super().step(ubt, batch, batch_idx)
        self._captions.add(batch["tokens"])

    def end(self, ubt: UBT) -> str | None:
        """Keep what all ranks have found."""
        self.gather(ubt)
        self._captions.gather()
        ubt.findings.captions, self._captions = self._captions, CaptionTokens(self._tokenize)
        return "overfit" if "overfit" in ubt.phases else "suspect"

    def state_dict(self) -> dict[str, Any]:
        """Scores and captions so far, of all ranks."""
        return {**super().state_dict(), "captions": all_ranks(self._captions.state_dict())}

    def load_state_dict(self, state_dict: dict[str, Any], rank: int) -> None:
        """Resume with this rank's."""
        super().load_state_dict(state_dict, rank)
        if rank < len(state_dict["captions"]):
            self._captions.load_state_dict(state_dict["captions"][rank])


class ScoreGiven(Score):
    """The score, where the pairs to be unlearnt are given: nothing is looked for but the tokens that carry them.

    Args:
        tokenize: The encoder's.
        keys: Of the pairs to be unlearnt.
        naming: Of the tokens that carry them.
    """

    def __init__(self, tokenize: Callable[[Sequence[str]], Tensor], keys: frozenset[str], naming: Naming) -> None:
        super().__init__(tokenize)
        self.keys, self.naming = keys, naming

    def end(self, ubt: UBT) -> str | None:
        """Take what is given for poisoned and everything else for benign.

        Raises:
            UserMistake: If none of the pairs is in the data.
        """
        super().end(ubt)
        findings = ubt.findings
        poisoned = np.array([key in self.keys for key in findings.keys])
        if not poisoned.any():
            raise UserMistake("model.given names no pair of data.train_shards: its keys are of other data")
        findings.suspicion = {"given": poisoned.astype(np.float32)}
        findings.about = "given"
        findings.decision = divide(poisoned, findings.suspicion["given"], poisoned, 0.0)
        some = findings.keys_of(sample(findings.having(POISONED), self.naming.pairs, 0))
        findings.compromised = localise(ubt, some, self.naming)
        return "forget" if findings.compromised.tokens else None


class Overfit(Phase["UBT"]):
    """Contrastive training of a copy, without augmentation, on the pairs of weakest similarity.

    Args:
        weak_share: Which share of all pairs.
        epochs: How often each is seen.
        lr: Constant.
        local_loss: See ``ContrastiveLoss``.
    """

    learning = ("image", "rest")
    train_mode = True
    measured = "overfitted"
    evaluated = True

    def __init__(self, weak_share: float, epochs: int, lr: float, local_loss: bool = False) -> None:
        super().__init__("overfit", epochs, lr)
        self.weak_share = weak_share
        self.loss = ContrastiveLoss(local_loss)

    def select(self, ubt: UBT, epoch: int) -> None:
        """The weakest pairs; as many as fill a batch at least."""
        weakness = -ubt.findings.seen["poisoned"]
        count = max(int(self.weak_share * len(weakness)), ubt.data.global_batch_size)
        ubt.data.select(ubt.findings.keys_of(most(weakness, count)))

    def step(self, ubt: UBT, batch: ImageTextBatch, batch_idx: int) -> Tensor:
        """The contrastive loss of a batch."""
        images, texts = ubt(batch)
        loss: Tensor = self.loss(images, texts, ubt.inverse_temperature)
        return loss

    def end(self, ubt: UBT) -> str:
        """The copy tells who is suspicious."""
        return "suspect"


class Suspect(Scoring):
    """Similarity under the overfitted copy; the evidence of each try ranks the pairs and names the compromised tokens.

    Each try has its evidence and its suspects; the first are forgotten first.

    Args:
        suspects: Pairs to be unlearnt: the most suspicious ones of those whose caption has a compromised token.
        doubtful_share: Share of the pairs with such a caption that are not retained, the most suspicious ones.
        naming: Of the tokens that carry the most suspicious pairs of all.
    """

    measured = "overfitted"

    def __init__(self, suspects: int, doubtful_share: float, naming: Naming) -> None:
        super().__init__("suspect", "overfitted")
        self.suspects, self.doubtful_share, self.naming = suspects, doubtful_share, naming

    def end(self, ubt: UBT) -> str | None:
        """Rank the pairs, localise, and divide the data. Without a compromised token nothing is suspicious."""
        self.gather(ubt)
        findings = ubt.findings
        first, *others = (self._suspects(ubt, evidence) for evidence in ubt.tries)
        # That too few pairs are benign is an error of the first try, and no reason to end a run that has had it.
        needed = ubt.data.global_batch_size
        others = [each for each in others if each.compromised.tokens and (each.decision == BENIGN).sum() >= needed]
        findings.untried = [first, *others] if first.compromised.tokens or not others else others
        findings.try_next()
        return "forget" if findings.compromised.tokens else None

    def _suspects(self, ubt: UBT, evidence: Sequence[Evidence]) -> Suspects:
        """Who is suspicious by some evidence."""
        findings = ubt.findings
        suspicion = {piece.name: piece.suspicion(findings.seen) for piece in evidence}
        for piece in evidence:
            if piece.among_words:
                suspicion[piece.name] = ubt.agreed(findings.captions.unexplained(suspicion[piece.name]))
        every = [robust_z(scores) for scores in suspicion.values()]
        together: Scores = np.stack(every).mean(axis=0, dtype=np.float32)
        suspicion["suspicion"] = together
        compromised = localise(ubt, findings.keys_of(most(together, self.naming.pairs)), self.naming)
        group = findings.captions.having(compromised.tokens)
        among = np.where(group, together, -np.inf)
        poisoned = np.zeros(len(group), dtype=bool)
        poisoned[most(among, min(self.suspects, int(group.sum())))] = True
        return Suspects(suspicion, divide(group, together, poisoned, self.doubtful_share), compromised)


def localise(ubt: UBT, keys: Sequence[str], naming: Naming, reach: float = 1.0) -> CompromisedTokens:
    """The tokens that the similarity of some pairs hangs on, under the model as it is.

    Args:
        ubt: The run.
        keys: Of the pairs whose tokens are masked one at a time.
        naming: Which of the tokens are compromised.
        reach: See ``compromised_tokens``.

    Returns:
        The same on all ranks.
    """
    captions, tokenize = ubt.findings.captions, ubt.preprocessing.tokenize
    texts = ubt.data.captions(keys)
    tokens = tokenize(texts)
    with ubt.evaluating():
        images = ubt.encode_image(ubt.normalised(ubt.data.pictures(keys)))
        drops = similarity_drops(ubt.encode_text, images, tokens, captions.special, captions.padding)
    found, lifts = compromised_tokens(tokens, drops, captions.shares(), naming.min_share, naming.min_lift, reach)
    return ubt.agreed(CompromisedTokens(found, words_of(found, texts, tokenize), lifts))


class LookAgain(Scoring):
    """Similarity under the model that has forgotten (ours): what the forgetting took along is poisoned.

    Forgetting generalises from the suspects to the trigger, so the similarity falls for poisoned pairs that were never
    pushed, nearly as far as for those that were, and hardly for benign ones of the same word. So the falls of the
    pairs that were not pushed have two humps, and the upper one lies near the suspects. Of the pairs of the upper hump,
    those above its mean are poisoned and the others suspicious. Without a backdoor there is nothing to generalise to.
    Each compromised token is judged by its own captions, and those for which this does not hold are none. Then the
    poisoned pairs tell what else carries them, such as the second key of a dual one.

    The final score of a pair is the sum of its fall and its first suspicion, as robust z-scores: each errs on other
    pairs.

    Args:
        min_split: Least share of the variance of these falls that lies between the two humps. One normal hump has 0.64,
            a flat one 0.75.
        min_transfer: Least distance of the humps' means, as a share of the distance of the suspects' mean from the
            lower one.
        doubtful_share: As for ``Suspect``.
        naming: Of the tokens that carry the poisoned pairs.
    """

    def __init__(self, min_split: float, min_transfer: float, doubtful_share: float, naming: Naming) -> None:
        super().__init__("look again", "forgotten")
        self.min_split, self.min_transfer = min_split, min_transfer
        self.doubtful_share, self.naming = doubtful_share, naming

    def end(self, ubt: UBT) -> str | None:
        """Divide the data anew; where nothing went along, try other suspects, as long as there are any."""
        self.gather(ubt)
        findings = ubt.findings
        fall = findings.seen["poisoned"] - findings.seen["forgotten"]
        pushed, compromised = findings.decision == POISONED, findings.compromised
        findings.suspicion["fall"] = fall
        findings.suspicion["final"] = robust_z(fall) + robust_z(findings.suspicion["suspicion"])
        findings.about, findings.decision = self.name, np.zeros_like(findings.decision)
        falls = [self._falls(findings.captions.having([token]), fall, pushed) for token in compromised.tokens]
        right = [each.split >= self.min_split and each.transfer >= self.min_transfer for each in falls]
        for word, each in zip(compromised.words, falls, strict=True):
            rank_zero_info(f"UBT {self.name}: {word!r:.40}, split {each.split:.2f}, transfer {each.transfer:.2f}")
        _, best = max(zip(right, falls, strict=True), key=lambda each: (each[0], each[1].transfer))
        findings.figures = {"split": best.split, "transfer": best.transfer}
        findings.compromised = compromised.chosen(right)
        for each in compress(falls, right):
            poisoned = each.upper & (fall >= fall[each.upper].mean())
            doubtful = max(self.doubtful_share, each.upper.sum() / each.group.sum())
            divided = divide(each.group, fall, poisoned, doubtful)
            findings.decision = np.maximum(findings.decision, divided)
        if any(right):
            self._name_the_rest(ubt, fall)
            return "forget again"
        if not findings.try_next():
            return None
        rank_zero_info(f"UBT {self.name}: these were the wrong suspects; others are tried")
        return "forget"

    def _name_the_rest(self, ubt: UBT, fall: Scores) -> None:
        """Add the tokens that carry the poisoned pairs beside those by which they were found.

        One of these may have been judged above and found wrong: of its captions too few are poisoned to tell.
        """
        findings = ubt.findings
        some = findings.keys_of(sample(findings.having(POISONED), self.naming.pairs, 0))
        ubt.restore()  # the forgetting that comes next does so anyway
        named = localise(ubt, some, self.naming, _BESIDE)
        found = findings.compromised.tokens
        findings.compromised = findings.compromised.and_others(named)
        nobody = np.zeros(len(fall), dtype=bool)
        for token in findings.compromised.tokens[len(found) :]:
            group = findings.captions.having([token]) & ~np.isnan(fall)
            findings.decision = np.maximum(findings.decision, divide(group, fall, nobody, self.doubtful_share))

    def _falls(self, group: npt.NDArray[np.bool_], fall: Scores, pushed: npt.NDArray[np.bool_]) -> _Falls:
        """How far the captions with a token fell."""
        group = group & ~np.isnan(fall)
        left = group & ~pushed
        threshold, split = two_humps(fall[left])
        upper = group & (fall > threshold)
        transfer = 0.0
        if (left & upper).any() and (pushed & group).any():
            lower, unpushed = fall[left & ~upper].mean(), fall[left & upper].mean()
            reached = fall[pushed & group].mean() - lower
            transfer = float((unpushed - lower) / reached) if reached > 0 else 0.0
        return _Falls(group, upper, split, transfer)


class _Falls(NamedTuple):
    """How far the similarity of the pairs with a token fell."""

    group: npt.NDArray[np.bool_]
    """``(N,)``, these pairs."""
    upper: npt.NDArray[np.bool_]
    """``(N,)``, those of the upper hump."""
    split: float
    transfer: float
