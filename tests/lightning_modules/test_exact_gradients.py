"""Two processes under DDP have the loss and the gradient of one process on the union of their batches."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel
from training import without_batch_norm

from untrigger.lightning_modules import PAR, BaseCLIPModule, CleanCLIP, PoisonedCLIP, RoCLIP
from untrigger.lightning_modules.frozen import FrozenEncoder
from untrigger.lightning_modules.ubt.repair import Repair
from untrigger.lightning_modules.ubt.unlearn import UnlearnWeights

PAIRS = 4
"""Of each of the two ranks."""
CAPTIONS = ["a star", "a red ring on a table", "the cross", "no heart", "two hearts", "rings", "a big blue box", "x"]


class Case(NamedTuple):
    """What is trained, and how near to one process it has to come."""

    make: Callable[[], BaseCLIPModule]
    forgets: bool = False
    autocast: bool = False
    tolerance: float = 1e-12


def forgetting() -> Case:
    """UBT's repair, without transplants: each rank draws its own. The image tower moves, batch norm is frozen."""

    def make() -> BaseCLIPModule:
        clip = PoisonedCLIP("small:nano-32")
        clip.encoder.requires_grad_(False).eval()
        clip.encoder.image_tower.requires_grad_(True)
        return clip

    return Case(make, forgets=True)


def moved_from_where_it_was() -> PAR:
    """PAR with a poisoned model that is another one: at the start, nothing has moved."""
    clip = without_batch_norm(PAR("small:nano-32"))
    clip._poisoned = FrozenEncoder(without_batch_norm(PAR("small:nano-32")).encoder.double())
    return clip


def matched_with_a_pool() -> RoCLIP:
    """RoCLIP in an epoch in which pictures are matched, with a pool that holds something."""
    clip = without_batch_norm(RoCLIP("small:nano-32", match_every=1, pool_size=16))
    generator = torch.Generator().manual_seed(5)
    clip.pool.add(
        torch.nn.functional.normalize(torch.randn(12, clip.encoder.embedding_dim, generator=generator), dim=1)
    )
    return clip


CASES = {
    "contrastive": Case(lambda: without_batch_norm(PoisonedCLIP("small:nano-32"))),
    "contrastive-local": Case(lambda: without_batch_norm(PoisonedCLIP("small:nano-32", local_loss=True))),
    "cleanclip": Case(lambda: without_batch_norm(CleanCLIP("small:nano-32", self_supervised_weight=0.7))),
    "cleanclip-local": Case(
        lambda: without_batch_norm(CleanCLIP("small:nano-32", self_supervised_weight=0.7, local_loss=True))
    ),
    "par": Case(moved_from_where_it_was),
    "roclip": Case(matched_with_a_pool),
    "forgetting": forgetting(),
    "micro-batches": Case(lambda: without_batch_norm(PoisonedCLIP("small:nano-32", micro_batch_size=3))),
    "micro-batches-local-cleanclip": Case(
        lambda: without_batch_norm(CleanCLIP("small:nano-32", local_loss=True, micro_batch_size=2))
    ),
    "micro-batches-autocast": Case(
        lambda: without_batch_norm(PoisonedCLIP("small:nano-32", micro_batch_size=2)), autocast=True, tolerance=0.03
    ),
}


class Step(nn.Module):
    """What DDP wraps: the training step of a module, or the step of UBT's repair."""

    def __init__(self, case: Case, rank: int, ranks: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.clip = case.make().to(torch.float32 if case.autocast else torch.float64)
        self.clip.log_losses = lambda *_, **__: None  # type: ignore[method-assign]
        self.autocast = case.autocast
        self.forget = (forget_phase(self.clip, 2 * PAIRS // ranks), rank, ranks) if case.forgets else None

    def forward(self, batch: Any) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16) if self.autocast else nullcontext():
            if self.forget is None:
                loss: Tensor = self.clip.training_step(batch, 0)
                return loss
            phase, rank, ranks = self.forget
            ubt: Any = SimpleNamespace(
                encode_image=self.clip.encode_image,
                normalised=lambda pictures: pictures,
                log_parts=lambda **_: None,
                trainer=SimpleNamespace(world_size=ranks),
                global_rank=rank,
                device="cpu",
            )
            return phase.step(ubt, batch, 0)


def forget_phase(clip: BaseCLIPModule, size: int) -> Repair:
    """A repair in the middle of its run, with eight poisoned pictures of four words."""
    phase = Repair(1, 1, 1e-3, size, UnlearnWeights(20.0, 0.0, 5.0), verified=False)
    generator = torch.Generator().manual_seed(5)
    before = deepcopy(clip.encoder)
    with torch.no_grad():
        for parameter in before.parameters():
            parameter.mul_(1.1)
        phase._before = FrozenEncoder(before)
        phase._pictures = torch.randn(8, 3, 32, 32, generator=generator, dtype=torch.float64)
        phase._word_of = torch.arange(8) % 4
        phase._texts = clip.encode_text(clip.preprocessing.tokenize(CAPTIONS[:4]))
        phase._unrelated = torch.linspace(-1, 0, 4, dtype=torch.float64)
    return phase


def batch(clip: BaseCLIPModule, mine: slice) -> dict[str, Any]:
    """This rank's part of eight pairs with views."""
    generator = torch.Generator().manual_seed(1)
    tokenize, dtype = clip.preprocessing.tokenize, clip.encoder.logit_scale.dtype
    images, views = torch.randn(2, 8, 3, 32, 32, generator=generator, dtype=dtype).unbind()
    return {
        "key": [str(number) for number in range(8)][mine],
        "image": images[mine],
        "image_view": views[mine],
        "tokens": tokenize(CAPTIONS)[mine],
        "tokens_view": tokenize(CAPTIONS[::-1])[mine],
    }


def learn(step: nn.Module, clip: BaseCLIPModule, mine: slice) -> dict[str, Tensor]:
    """The loss and the gradient of each parameter, by name."""
    loss = step(batch(clip, mine))
    loss.backward()
    gradients = {name: part.grad.clone() for name, part in clip.named_parameters() if part.grad is not None}
    return {"loss": loss.detach(), **gradients}


def distance(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest difference of a loss or a gradient, as a share of its largest number."""
    assert found.keys() == expected.keys()
    return max(
        float((found[name] - expected[name]).abs().max() / expected[name].abs().max().clamp(min=1e-30))
        for name in expected
        if expected[name].abs().max() > 1e-12 or found[name].abs().max() > 1e-12
    )


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    alone = {}
    for name, case in CASES.items():
        whole = Step(case._replace(make=_plainly(case.make)), 0, 1)
        alone[name] = learn(whole, whole.clip, slice(None))
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    try:
        found = {}
        for name, case in CASES.items():
            step = Step(case, rank, 2)
            synchronised: list[int] = []
            parallel = DistributedDataParallel(step)
            # A function with annotations would have to have them as objects.
            parallel.register_comm_hook(synchronised, lambda numbers, bucket: _counted(numbers, bucket))
            got = learn(parallel, step.clip, slice(PAIRS * rank, PAIRS * rank + PAIRS))
            if case.forgets:  # means over each rank's pictures, of which DDP takes the mean
                distributed.all_reduce(got["loss"])
                got["loss"] /= 2
            numbers = sum(part.numel() for part in step.parameters() if part.requires_grad)
            found[name] = {"distance": distance(got, alone[name]), "synchronised": sum(synchronised) / numbers}
        Path(folder, f"{rank}.json").write_text(json.dumps(found))
    finally:
        distributed.destroy_process_group()


def _counted(numbers: list[int], bucket: distributed.GradBucket) -> torch.futures.Future[Tensor]:
    numbers.append(bucket.buffer().numel())
    return allreduce_hook(distributed.group.WORLD, bucket)


def _plainly(make: Callable[[], BaseCLIPModule]) -> Callable[[], BaseCLIPModule]:
    """The same module without micro-batches: one process that encodes the whole batch at once."""

    def plain() -> BaseCLIPModule:
        clip = make()
        clip.execution.micro_batch_size = None
        return clip

    return plain


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, float]]]:
    """What each of two ranks has found, by the name of a case."""
    folder = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(_rank, (str(folder),), nprocs=2)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradient_are_those_of_one_process_on_the_union(
    name: str, ranks: list[dict[str, dict[str, float]]]
) -> None:
    for found in ranks:
        assert found[name]["distance"] < CASES[name].tolerance
        # Each number went over the network once.
        assert found[name]["synchronised"] == 1
