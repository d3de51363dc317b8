"""What every CLIP module shares: construct, encode, optimise, and answer a zero-shot evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.nn import functional

from ..contracts import (
    NO_DEFENCE,
    Attack,
    ImageTextBatch,
    ImageTextData,
    PoisonedData,
    PredictOutputs,
    Preprocessing,
    TrainingPoison,
    UserMistake,
    ZeroShotBatch,
    ZeroShotData,
    ZeroShotOutputs,
)
from ..trainer_lookup import data_of
from .batch_norm import check_synchronised
from .encoders import build_encoder, has_weights, load_weights
from .execution import Execution, backend_of
from .optimisation import adamw, decay_groups, known_steps, with_schedule
from .precision import similarities, unit_length

MAX_LOGIT_SCALE = math.log(100)
"""CLIP's clamp of the temperature (arXiv 2103.00020, section 2.5)."""


class BaseCLIPModule(LightningModule):
    """An encoder with an optimiser. A subclass writes ``training_step``.

    A run either plants a backdoor or defends against one, and ``results.csv`` names the defence: the class. Unless the
    class says itself (``is_defence``), a run is a defence but for one that trains poison into random weights: such a
    model is a poisoned one, whatever it is trained by.

    Args:
        encoder: ``hf:NAME``, ``open_clip:NAME[/TAG]`` or ``small:NAME``.
        init_from: A file or folder whose weights the encoder starts from. Only tensors are read, whatever it is.
        lr: Peak learning rate of AdamW.
        weight_decay: Of matrices and kernels; gains, biases and the temperature have none.
        betas: Of AdamW.
        eps: Of AdamW.
        warmup_steps: Steps of linear warm-up, before a cosine to zero at the end of the run.
        micro_batch_size: For batches larger than memory: in training, most pictures or captions that are encoded at a
            time. The gradient is that of the whole batch, for a second forward pass; see ``in_micro_batches``.
        channels_last: Keep the channels last in memory: faster convolutions on tensor cores.
        compile: Compile the encoder with ``torch.compile``: true, or the name of a backend.

    Raises:
        UserMistake: If the encoder is unknown, the weights do not fit, or an argument is out of range.
    """

    is_defence: ClassVar[bool | None] = None
    """Whether a run of this class is a defence: true also for one that pretrains on poisoned data, as SafeCLIP does;
    false for one that attacks or only looks. None leaves it to what the run starts from."""

    def __init__(
        self,
        encoder: str,
        init_from: str | None = None,
        lr: float = 5e-4,
        weight_decay: float = 0.1,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        warmup_steps: int = 0,
        micro_batch_size: int | None = None,
        channels_last: bool = False,
        compile: bool | str = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        if lr < 0 or weight_decay < 0 or warmup_steps < 0:
            raise UserMistake("model: lr, weight_decay and warmup_steps are at least 0")
        self.lr, self.weight_decay, self.betas, self.eps = lr, weight_decay, betas, eps
        self.warmup_steps = warmup_steps
        self.encoder = build_encoder(encoder)
        if init_from is not None:
            load_weights(self.encoder, init_from)
        self._starts_from_weights = init_from is not None or has_weights(encoder)
        self.execution = Execution(micro_batch_size, channels_last, backend_of(compile))
        self.execution.lay_out(self.encoder)
        self.losses: dict[str, Tensor] = {}
        """What the last step logged of its loss, by name."""
        self._class_embeddings: Tensor | None = None
        self._attacks: list[Attack] = []
        self._attack_embeddings: dict[str, Tensor] = {}

    @property
    def preprocessing(self) -> Preprocessing:
        """How pictures and captions are to be prepared for the encoder."""
        return self.encoder.preprocessing

    @property
    def defence(self) -> str:
        """The name of the defence: the class's; ``none`` where this run is none. Known when its data are."""
        data = None if self._trainer is None else data_of(self._trainer, PoisonedData)
        poison = "none" if data is None else data.training_poison
        return type(self).__name__ if self.defends(poison) else NO_DEFENCE

    def defends(self, poison: TrainingPoison) -> bool:
        """Whether a run defends a model, rather than plants a backdoor in it.

        Args:
            poison: Where the poison in the training pairs comes from.
        """
        if self.is_defence is not None:
            return self.is_defence
        return poison == "none" or self._starts_from_weights

    @property
    def inverse_temperature(self) -> Tensor:
        """What similarities are multiplied with, at most 100."""
        return self.encoder.logit_scale.exp()

    @property
    def scales(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation per channel of pictures in [0, 1], ``(3, 1, 1)`` each, on the device."""
        mean, std = (
            torch.tensor(values, dtype=torch.float32).to(self.device, non_blocking=True)
            for values in (self.encoder.mean, self.encoder.std)
        )
        return mean.view(3, 1, 1), std.view(3, 1, 1)

    def normalised(self, pictures: Tensor) -> Tensor:
        """Pictures ``(N, 3, S, S)`` uint8 as the encoder takes them, on its device."""
        mean, std = self.scales
        return (pictures.to(self.device, non_blocking=True).float() / 255 - mean) / std

    def encode_image(self, images: Tensor) -> Tensor:
        """Pictures ``(B, 3, S, S)``, normalised, to features ``(B, D)`` of unit length, float32 at least."""
        return unit_length(self.execution.image(self.encoder, images))

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Captions ``(B, L)`` int64 to features ``(B, D)`` of unit length, float32 at least."""
        return unit_length(self.execution.text(self.encoder, tokens))

    def forward(self, batch: ImageTextBatch) -> tuple[Tensor, Tensor]:
        """Features of pictures and captions, ``(B, D)`` each, of unit length."""
        return self.encode_image(batch["image"]), self.encode_text(batch["tokens"])

    def zero_shot_logits(self, image_features: Tensor, attack: str | None = None) -> Tensor:
        """Features ``(B, D)`` of unit length to ``(B, C)`` float32: similarity to the classes of the evaluation.

        Args:
            image_features: ``(B, D)``, of unit length.
            attack: The attack whose captions describe the classes, if it has its own; None for the usual ones.

        Raises:
            RuntimeError: If no evaluation has started.
        """
        if self._class_embeddings is None:
            raise RuntimeError("the class embeddings are computed when an evaluation starts")
        embeddings = self._class_embeddings
        if attack is not None:
            embeddings = self._attack_embeddings.get(attack, embeddings)
        return similarities(image_features, embeddings, self.inverse_temperature)

    def zero_shot_outputs(self, label: Tensor, features: Tensor, triggered: dict[str, Tensor]) -> ZeroShotOutputs:
        """What an evaluation step returns, from features that are there already.

        Args:
            label: ``(B,)`` int64.
            features: ``(B, D)`` of unit length, of the clean pictures.
            triggered: By the name of an attack, those of the triggered pictures.

        Returns:
            The outputs, with the features.
        """
        return {
            "label": label,
            "logits": self.zero_shot_logits(features),
            "triggered_logits": self.attack_logits(features, triggered, self.zero_shot_logits),
            "features": features,
            "triggered_features": triggered,
            "inverse_temperature": self.inverse_temperature,
        }

    def attack_logits(
        self, clean: Tensor, triggered: Mapping[str, Tensor], classify: Callable[[Tensor, str], Tensor]
    ) -> dict[str, Tensor]:
        """Logits of the pictures that each measured attack shows, each picture encoded once.

        Args:
            clean: Features of the clean pictures, ``(B, D)``.
            triggered: By the name of an attack, those of the triggered ones.
            classify: Features and the name of an attack to logits ``(B, C)``.

        Returns:
            By the name of an attack, controls among them, ``(B, C)``.
        """
        return {
            attack.name: classify(triggered[attack.control_of or attack.name] if attack.stamped else clean, attack.name)
            for attack in self._attacks
        }

    def log_losses(self, loss: Tensor, batch_size: int, **parts: Tensor) -> None:
        """Log ``train/loss`` (also in the progress bar) and ``train/<part>`` for each part."""
        self.losses = {"loss": loss.detach(), **{name: part.detach() for name, part in parts.items()}}
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=batch_size)
        self.log_dict({f"train/{name}": part.detach() for name, part in parts.items()}, batch_size=batch_size)

    def on_fit_start(self) -> None:
        """See, before anything is trained, that it can be: the batches of the data module, batch norm on its device."""
        check_synchronised(self, self.device)
        data = data_of(self.trainer, ImageTextData)
        if data is not None:
            self.check_batches(data.batch_names)

    def check_batches(self, names: Container[str]) -> None:
        """Say whether a batch with these members can be trained on.

        Raises:
            UserMistake: If it lacks one that is needed.
        """
        if "tokens" not in names:
            raise UserMistake(f"{type(self).__name__} needs pictures with captions: use ImageTextDataModule as data")

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, and bring the parameters back into their range, before a checkpoint of them can be written."""
        super().optimizer_step(*args, **kwargs)
        self.constrain()

    def constrain(self) -> None:
        """Clamp the temperature. Clamped in the forward pass, it would have no gradient to come back with."""
        with torch.no_grad():
            self.encoder.logit_scale.clamp_(max=MAX_LOGIT_SCALE)

    def configure_optimizers(self) -> Any:
        """AdamW with warm-up and cosine, in steps."""
        groups = decay_groups(self, self.weight_decay)
        optimizer = adamw(groups, self.lr, self.betas, self.eps, self.trainer)
        scheduler = with_schedule(optimizer, self.warmup_steps, known_steps(self.trainer))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_validation_epoch_start(self) -> None:
        """Compute the class embeddings once for this evaluation."""
        self._embed_classes()

    def on_test_epoch_start(self) -> None:
        """Compute the class embeddings once for this evaluation."""
        self._embed_classes()

    def validation_step(self, batch: ZeroShotBatch, batch_idx: int) -> ZeroShotOutputs:
        """Logits and features of the clean and the triggered pictures."""
        return self.zero_shot_outputs(
            batch["label"],
            self.encode_image(batch["image"]),
            {name: self.encode_image(images) for name, images in batch["triggered"].items()},
        )

    def test_step(self, batch: ZeroShotBatch, batch_idx: int) -> ZeroShotOutputs:
        """As ``validation_step``."""
        return self.validation_step(batch, batch_idx)

    def predict_step(self, batch: ImageTextBatch, batch_idx: int) -> PredictOutputs:
        """The similarity of each pair."""
        images, texts = self(batch)
        return {"key": batch["key"], "similarity": (images * texts).sum(dim=-1)}

    def _embed_classes(self) -> None:
        """Embed the classes for the evaluation that starts, as its prompts and those of its attacks describe them."""
        data = data_of(self.trainer, ZeroShotData)
        if data is None:
            raise UserMistake("an evaluation needs a data module with class prompts, such as ImageTextDataModule")
        self._class_embeddings = self._embed_prompts(data.class_prompts.prompts)
        self._attacks = list(data.attacks)
        own = {attack.prompts for attack in self._attacks if attack.prompts is not None}
        embedded = {prompts: self._embed_prompts(prompts) for prompts in own}
        self._attack_embeddings = {
            attack.name: embedded[attack.prompts] for attack in self._attacks if attack.prompts is not None
        }

    def _embed_prompts(self, prompts: Sequence[Sequence[str]]) -> Tensor:
        """``(C, D)``: for each class the mean of its captions' features, brought to unit length again."""
        flat = self.preprocessing.tokenize([caption for captions in prompts for caption in captions])
        # In blocks: a thousand classes with eighty templates do not fit in memory at once.
        features = torch.cat([self.encode_text(block.to(self.device)) for block in torch.split(flat, 512)])
        classes = [part.mean(dim=0) for part in torch.split(features, [len(captions) for captions in prompts])]
        return functional.normalize(torch.stack(classes), dim=-1)
