"""The base class of all CLIP modules: construct, encode, optimise, and answer a zero-shot evaluation."""

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
from ..trainer.lookup import data_of, trainer_of
from .batch_norm import check_synchronised
from .encoders import build_encoder, has_weights, load_weights
from .execution import Execution, backend_of
from .optimisation import adamw, decay_groups, known_steps, with_schedule
from .precision import similarities, unit_length

MAX_LOGIT_SCALE = math.log(100)
"""CLIP's clamp of the temperature (arXiv 2103.00020, section 2.5)."""


class BaseCLIPModule(LightningModule):
    """An encoder with an optimiser.

    A subclass writes ``training_step``, which returns the loss after `log_losses`. It may override ``is_defence``,
    `check_batches` where it needs other batches, `constrain` where it trains other parameters with a range, and
    Lightning's ``configure_optimizers``.

    A run either plants a backdoor or defends against one, and ``results.csv`` names the defence: the class. Unless the
    class says itself (``is_defence``), every run is a defence, except one that trains random weights on poisoned pairs.

    Args:
        encoder: ``hf:NAME``, ``open_clip:NAME[/TAG]`` or ``small:NAME``.
        init_from: File or folder of the weights that the encoder starts from. Only tensors are read.
        lr: Peak learning rate of AdamW.
        weight_decay: Weight decay of matrices and kernels; gains, biases and the temperature have none.
        betas: AdamW's decay rates of the running averages of the gradient and its square, in [0, 1).
        eps: Added to the denominator of AdamW's update.
        warmup_steps: Steps of linear warm-up, before a cosine to zero at the end of the run.
        micro_batch_size: For batches larger than memory: the most pictures or captions that are encoded at a time in
            training. The gradient is that of the whole batch, at the cost of a second forward pass; see
            ``in_micro_batches``.
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
        """The last step's loss and its parts, by name, as scalars without gradient."""
        self._class_embeddings: Tensor | None = None
        self._attacks: list[Attack] = []
        self._attack_embeddings: dict[str, Tensor] = {}

    @property
    def preprocessing(self) -> Preprocessing:
        """How pictures and captions are to be prepared for the encoder."""
        return self.encoder.preprocessing

    @property
    def defence(self) -> str:
        """The name of the class, or ``none`` where the run is no defence; final once the data module is attached."""
        trainer = trainer_of(self)
        data = None if trainer is None else data_of(trainer, PoisonedData)
        poison = "none" if data is None else data.training_poison
        return type(self).__name__ if self.defends(poison) else NO_DEFENCE

    def defends(self, poison: TrainingPoison) -> bool:
        """Whether a run defends a model, rather than plants a backdoor in it.

        Args:
            poison: Where the poison in the training pairs comes from.

        Returns:
            ``is_defence`` where the class sets it; otherwise whether the pairs are clean or the weights pretrained.
        """
        if self.is_defence is not None:
            return self.is_defence
        return poison == "none" or self._starts_from_weights

    @property
    def inverse_temperature(self) -> Tensor:
        """The factor of the similarities, a scalar in (0, 100]."""
        return self.encoder.logit_scale.exp()

    @property
    def scales(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation per channel, for pictures in [0, 1]: ``(3, 1, 1)`` each, on the device."""
        return self.encoder.scales

    def normalised(self, pictures: Tensor) -> Tensor:
        """Normalise pictures ``(N, 3, S, S)`` uint8 for the encoder: float32, the same shape, on its device."""
        return self.encoder.normalised(pictures)

    def encode_image(self, images: Tensor) -> Tensor:
        """Encode normalised pictures ``(B, 3, S, S)`` to features ``(B, D)`` of unit length, float32 at least."""
        return unit_length(self.execution.image(self.encoder, images))

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Encode tokens ``(B, L)`` int64 to features ``(B, D)`` of unit length, float32 at least."""
        return unit_length(self.execution.text(self.encoder, tokens))

    def forward(self, batch: ImageTextBatch) -> tuple[Tensor, Tensor]:
        """Encode a batch: features of its pictures and captions, ``(B, D)`` each, of unit length."""
        return self.encode_image(batch["image"]), self.encode_text(batch["tokens"])

    def zero_shot_logits(self, image_features: Tensor, attack: str | None = None) -> Tensor:
        """Classify features by their similarity to the classes of the evaluation.

        Args:
            image_features: Image features, ``(B, D)``, of unit length.
            attack: Name of the attack whose prompts describe the classes; None, or an attack without prompts of its
                own, means those of the zero-shot set.

        Returns:
            ``(B, C)`` float32: cosine similarity, multiplied by ``inverse_temperature``.

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
        """Make what an evaluation step returns from features that were computed before.

        Args:
            label: Classes, ``(B,)`` int64.
            features: Features of the clean pictures, ``(B, D)``, of unit length.
            triggered: Features of the triggered pictures, likewise, by the name of the attack.

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
        """Compute the logits of each measured attack, from features that it may share with others.

        Args:
            clean: Features of the clean pictures, ``(B, D)``.
            triggered: Features of the triggered pictures, ``(B, D)``, by the name of the attack.
            classify: Maps features and the name of an attack to logits ``(B, C)``.

        Returns:
            Logits ``(B, C)`` by the name of the attack, including controls.
        """
        return {
            attack.name: classify(triggered[attack.control_of or attack.name] if attack.stamped else clean, attack.name)
            for attack in self._attacks
        }

    def log_losses(self, loss: Tensor, batch_size: int, **parts: Tensor) -> None:
        """Log ``train/loss`` (also in the progress bar) and ``train/<part>`` for each part.

        Args:
            loss: The loss of a step, a scalar.
            batch_size: Pairs of the step, on this rank.
            parts: Parts of the loss, scalars.
        """
        self.losses = {"loss": loss.detach(), **{name: part.detach() for name, part in parts.items()}}
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=batch_size)
        self.log_dict({f"train/{name}": part.detach() for name, part in parts.items()}, batch_size=batch_size)

    def on_fit_start(self) -> None:
        """Check before training that batch norm works on the device, and that the data has what a step needs."""
        check_synchronised(self, self.device)
        data = data_of(self.trainer, ImageTextData)
        if data is not None:
            self.check_batches(data.batch_names)

    def check_batches(self, names: Container[str]) -> None:
        """Check that batches with these entries can be trained on. A subclass that needs other entries overrides it.

        Args:
            names: Keys of the data module's batches.

        Raises:
            UserMistake: If an entry that is needed is missing.
        """
        if "tokens" not in names:
            raise UserMistake(f"{type(self).__name__} needs pictures with captions: use ImageTextDataModule as data")

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then `constrain` the parameters, before a checkpoint of them can be written."""
        super().optimizer_step(*args, **kwargs)
        self.constrain()

    def constrain(self) -> None:
        """Clamp the temperature. A clamp in the forward pass would leave it without a gradient, and so at its limit."""
        with torch.no_grad():
            self.encoder.logit_scale.clamp_(max=MAX_LOGIT_SCALE)

    def configure_optimizers(self) -> Any:
        """Build AdamW, with a linear warm-up and a cosine to zero that advance each step."""
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
        """Compute logits and features of the clean and the triggered pictures."""
        return self.zero_shot_outputs(
            batch["label"],
            self.encode_image(batch["image"]),
            {name: self.encode_image(images) for name, images in batch["triggered"].items()},
        )

    def test_step(self, batch: ZeroShotBatch, batch_idx: int) -> ZeroShotOutputs:
        """Do as ``validation_step``."""
        return self.validation_step(batch, batch_idx)

    def predict_step(self, batch: ImageTextBatch, batch_idx: int) -> PredictOutputs:
        """Compute the cosine similarity of each pair, ``(B,)``, with its key."""
        images, texts = self(batch)
        return {"key": batch["key"], "similarity": (images * texts).sum(dim=-1)}

    def _embed_classes(self) -> None:
        """Embed the classes by the prompts of the zero-shot set, and by those of each attack that has its own."""
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
        """Average the features of each class's captions and normalise the mean: ``(C, D)``."""
        flat = self.preprocessing.tokenize([caption for captions in prompts for caption in captions])
        # In blocks: a thousand classes with eighty templates do not fit in memory at once.
        features = torch.cat([self.encode_text(block.to(self.device)) for block in torch.split(flat, 512)])
        classes = [part.mean(dim=0) for part in torch.split(features, [len(captions) for captions in prompts])]
        return functional.normalize(torch.stack(classes), dim=-1)
