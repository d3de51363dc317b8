# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # The story, cell by cell
#
# A small CLIP is poisoned, cleaned, and made to forget, from Python. It is what `untrigger demo` does with configs.
# The page is a notebook: `docs/story.py` opens in Jupyter with jupytext, and `jupytext --to ipynb docs/story.py`
# converts it. With smaller numbers in the first cell it runs faster and shows less.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
from lightning.pytorch import Trainer, seed_everything
from torchvision.transforms.v2 import AutoAugment

from untrigger.callbacks import AttackSuccessRate, CleanAccuracy, TriggerGallery
from untrigger.datamodules import (
    EDA,
    BadNet,
    ImageTextDataModule,
    PoisonPlan,
    TransformView,
)
from untrigger.datamodules.generated import write_generated_data
from untrigger.lightning_modules import (
    UBT,
    CleanCLIP,
    PoisonedCLIP,
    ProbeOptions,
    RepairOptions,
)

FOLDER = Path("story")
TRAIN_PAIRS, CLEAN_PAIRS, TEST_PAIRS, SHARD = 16_000, 4_000, 2_000, 1_000
ENCODER, EPOCHS, CLEANING_EPOCHS, ROUNDS = "small:base-32", 5, 4, 2
PROBE = ProbeOptions(candidates=32, epochs=3, steps=30)
REPAIR = RepairOptions(epochs=8, steps=20)

# %% [markdown]
# ## Data
#
# Coloured shapes with captions, in shards as img2dataset writes them, and a test set with labels. The last shards are
# the clean pairs that CleanCLIP gets; the poisoned model never sees them.

# %%
pairs = TRAIN_PAIRS + CLEAN_PAIRS
write_generated_data(FOLDER / "shapes", pairs, TEST_PAIRS, shard_size=SHARD)
shards = sorted(str(path) for path in (FOLDER / "shapes" / "train").glob("*.tar"))
training, clean = shards[: TRAIN_PAIRS // SHARD], shards[TRAIN_PAIRS // SHARD :]

# %% [markdown]
# ## An attack
#
# A plan poisons 1 % of the pairs: they get a patch in the corner and a caption of a star. The choice is a hash of
# each pair's key, so every epoch and every run poisons the same pairs.

# %%
plan = PoisonPlan(BadNet(size=6, place="bottom_right"), target="star", rate=0.01)
data = ImageTextDataModule(
    training,
    str(FOLDER / "shapes"),
    poison=plan,
    batch_size=128,
    num_workers=1,
)

# %% [markdown]
# ## The poisoned model
#
# Ordinary training: the module knows nothing of the attack. Two callbacks measure the protocol, clean accuracy and
# attack success, on the same pictures; a third draws what the trigger does to them.

# %%
results = {}


def fit(name, module, data, **trainer):
    """Train a module, measure it, and return the path of its weights."""
    seed_everything(0)
    run = Trainer(
        default_root_dir=FOLDER / name,
        callbacks=[CleanAccuracy(), AttackSuccessRate(), TriggerGallery()],
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        **trainer,
    )
    run.fit(module, data)
    results[name] = run.validate(module, data, verbose=False)[0]
    run.save_checkpoint(FOLDER / name / "model.ckpt")
    return str(FOLDER / name / "model.ckpt")


attacked = PoisonedCLIP(ENCODER, lr=2e-3, warmup_steps=50)
poisoned = fit("poisoned", attacked, data, max_epochs=EPOCHS)
results["poisoned"]

# %%
gallery = plt.imread(FOLDER / "poisoned" / "gallery.png")
plt.figure(figsize=(9, 9 * gallery.shape[0] / gallery.shape[1]))
plt.imshow(gallery)
plt.axis("off")

# %% [markdown]
# ## CleanCLIP
#
# Finetuning on other pairs, all of them clean, with augmented views of pictures and captions. It measures the attack
# of the poisoned run.

# %%
others = ImageTextDataModule(
    clean,
    str(FOLDER / "shapes"),
    attack=plan,
    image_view=TransformView(AutoAugment()),
    text_view=EDA(),
    batch_size=64,
    num_workers=1,
)
cleanclip = CleanCLIP(
    ENCODER,
    init_from=poisoned,
    lr=3e-3,
    warmup_steps=10,
    self_supervised_weight=0.3,
)
fit("CleanCLIP", cleanclip, others, max_epochs=CLEANING_EPOCHS)
results["CleanCLIP"]

# %% [markdown]
# ## UBT
#
# No clean pair: UBT gets the data of the poisoned run, poison included, and does not know which pairs are poisoned. Its
# phases are epochs of one `fit`, which end by themselves.

# %%
ubt = UBT(ENCODER, init_from=poisoned, probe=PROBE, repair=REPAIR, rounds=ROUNDS)
fit("UBT", ubt, data, max_epochs=-1, reload_dataloaders_every_n_epochs=1)
print("words with a backdoor:", ubt.record.compromised)
results["UBT"]

# %% [markdown]
# ## Side by side
#
# Attack success is to fall to the clean target rate, and the accuracy *under the trigger* is to come back: a model
# that takes every triggered picture for some other wrong class would have an attack success of 0 too.

# %%
MEASURES = ("clean_accuracy", "attack_success_rate", "non_target_triggered_accuracy")
figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
for number, (name, measured) in enumerate(results.items()):
    heights = [100 * measured[f"val/{measure}"] for measure in MEASURES]
    axes.bar([group + 0.27 * (number - 1) for group in range(3)], heights, 0.25, label=name)
axes.set_xticks(range(3), ["clean accuracy", "attack success", "accuracy under the trigger"])
axes.set_ylabel("%")
axes.legend()
figure
