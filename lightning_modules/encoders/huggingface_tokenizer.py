"""The tokeniser of a Hugging Face model as a picklable function, and the check that the model finds its end token."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ...contracts import UserMistake
from .messages import one_line

# transformers pools at the largest token id of a caption where the config names this end token, because early configs
# of CLIP named it wrongly (https://github.com/huggingface/transformers/pull/24773).
_LEGACY_END_TOKEN = 2


class HuggingFaceTokenizer:
    """Turns captions into tokens of one length.

    Args:
        folder: The model's folder.
        context_length: Number of tokens of a caption, start and end included.

    Raises:
        UserMistake: If the folder holds no tokeniser that can pad.
    """

    def __init__(self, folder: Path, context_length: int) -> None:
        from transformers import AutoTokenizer

        # Loader workers run side by side already, and the tokenizers library warns when it is forked after use.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
        # Whatever goes wrong while foreign files are parsed is a fault of those files.
        except Exception as error:
            raise UserMistake(f"{folder} holds no tokenizer that transformers reads: {one_line(error)}") from error
        if self.tokenizer.pad_token_id is None:
            raise UserMistake(f"{folder}: the tokenizer has no padding token; name one in tokenizer_config.json")
        self.context_length = context_length

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """Turn N captions into ``(N, context_length)`` int64 tokens; over-long ones are cut before the end token."""
        encoded = self.tokenizer(
            list(captions),
            padding="max_length",
            truncation=True,
            max_length=self.context_length,
            return_attention_mask=False,
            return_tensors="pt",
        )
        tokens: Tensor = encoded["input_ids"]
        return tokens

    def check_end_token(self, configured: int | None, folder: Path) -> None:
        """Check that transformers' CLIP pools at the end token of every caption, cut ones included.

        Args:
            configured: ``text_config.eos_token_id`` of the model.
            folder: The model's folder, for the message.

        Raises:
            UserMistake: If it would pool elsewhere, with what to set.
        """
        end = self.tokenizer.eos_token_id
        if end is None:
            raise UserMistake(f"{folder}: the tokenizer has no end token; name one in tokenizer_config.json")
        if configured == _LEGACY_END_TOKEN:
            largest = max(self.tokenizer.get_vocab().values())
            if end != largest:
                cure = (
                    "give the end token another id"
                    if end == _LEGACY_END_TOKEN
                    else f"set it to {end}, the id of the tokenizer's end token"
                )
                raise UserMistake(
                    f"{folder}: with text_config.eos_token_id 2 transformers pools at the largest token id of a "
                    f"caption, which here can be {largest} and not the end token; {cure}"
                )
        elif configured != end:
            raise UserMistake(
                f"{folder}: text_config.eos_token_id is {configured}, so the model would not pool at the tokenizer's "
                f"end token; set it to {end}"
            )
        if not (self(["a", "a " * 4 * self.context_length]) == end).any(dim=1).all():
            raise UserMistake(
                f"{folder}: the tokenizer leaves out the end token {end}; it needs a template that adds it"
            )
