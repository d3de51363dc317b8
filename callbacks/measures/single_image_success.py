"""How many given pictures are taken for the class that an attacker wants."""

from __future__ import annotations

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from ...contracts import PictureAttack, PictureAttackData, UserMistake, ZeroShotData, ZeroShotModule
from ...trainer.lookup import data_of
from .zero_shot_measure import predictions


class SingleImageSuccess(Callback):
    """Classifies the given pictures of each attack on single pictures, at the end of each evaluation.

    The success rate is the share of the given pictures whose class is the target (Carlini and Terzis, arXiv
    2106.09667: the average over pictures). There is no clean target rate: without the attack, the same pictures would
    have to be shown to another model.

    Every rank classifies all of them, as they are few; the sanity check is left out.

    Logs:
        ``val/attack_success_rate``, the mean over these attacks, where no attack on test pictures is measured; and,
        where there are several attacks of either kind, ``val/attack_success_rate/SingleImage`` for each of these. With
        ``test/`` in ``test``. Nothing where there is no such attack.
    """

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the figures with the prefix ``val/``."""
        if not trainer.sanity_checking:
            self._log("val", trainer, pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the figures with the prefix ``test/``."""
        self._log("test", trainer, pl_module)

    def _log(self, stage: str, trainer: Trainer, pl_module: LightningModule) -> None:
        pictures = data_of(trainer, PictureAttackData)
        attacks = pictures.picture_attacks if pictures is not None else []
        if not attacks:
            return
        if not isinstance(pl_module, ZeroShotModule):
            raise UserMistake(f"{type(pl_module).__name__} has no encode_image and zero_shot_logits for given pictures")
        rates = {attack.name: self._rate(attack, trainer, pl_module) for attack in attacks}
        data = data_of(trainer, ZeroShotData)
        others = data.attacks if data is not None else []
        figures = {f"/{name}": rate for name, rate in rates.items()} if len(rates) + len(others) > 1 else {}
        if not others:
            figures[""] = torch.stack(list(rates.values())).mean()
        for name, rate in figures.items():
            # Ranks agree already; sync_dist only declares to Lightning that the figure is global.
            pl_module.log(f"{stage}/attack_success_rate{name}", rate, sync_dist=True, prog_bar=not name)

    def _rate(self, attack: PictureAttack, trainer: Trainer, module: ZeroShotModule) -> Tensor:
        device = trainer.strategy.root_device
        with trainer.precision_plugin.forward_context():
            logits = module.zero_shot_logits(module.encode_image(attack.images.to(device)))
        return (predictions(logits) == attack.target).float().mean()
