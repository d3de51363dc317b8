"""The tokeniser of a Hugging Face model as a picklable function, and the check that the model finds its end token."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ...contracts import UserMistake
from ...files.reading import reading
from .huggingface_files import read_json
from .tokenizer_files import check_tokenizer_files

# transformers pools at the largest token id of a caption where the config names this end token, because early configs
# of CLIP named it wrongly (https://github.com/huggingface/transformers/pull/24773).
_LEGACY_END_TOKEN = 2

_CHARACTERS_PER_TOKEN = 32
"""A caption is cut there, as for open_clip: a megabyte without a space would hold up a loader for hours."""
_WORDS_TRIED = 200
_MIN_FOUND = 0.1
"""Of the words of its own vocabulary that a tokenizer finds in a text. CLIP's finds 60 % of them, one whose merges are
missing 1 %."""


class HuggingFaceTokenizer:
    """Turns captions into tokens of one length.

    Where the folder says ``do_lower_case`` and the class that it names ignores that, as Gemma's does in the folders of
    SigLIP 2, captions are lower-cased here: the model was trained so.

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
        check_tokenizer_files(folder)
        with reading("tokenizer of", folder):
            self.tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
        if self.tokenizer.pad_token_id is None:
            raise UserMistake(f"{folder}: the tokenizer has no padding token; name one in tokenizer_config.json")
        self.context_length = context_length
        self.lower_case = False
        self.mended = False
        """Whether the tokenizer differs from what its class makes of the folder."""
        with reading("tokenizer of", folder):
            if read_json(folder / "tokenizer_config.json").get("do_lower_case") is True:
                self._lower_case()

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """Turn N captions into ``(N, context_length)`` int64 tokens; over-long ones are cut before the end token."""
        longest = _CHARACTERS_PER_TOKEN * self.context_length
        encoded = self.tokenizer(
            [caption[:longest].lower() if self.lower_case else caption[:longest] for caption in captions],
            padding="max_length",
            truncation=True,
            max_length=self.context_length,
            return_attention_mask=False,
            return_tensors="pt",
        )
        tokens: Tensor = encoded["input_ids"]
        return tokens

    def check_vocabulary(self, size: int, folder: Path) -> None:
        """Check that the tokenizer is the model's: ids that its table has, and other tokens for other captions.

        Args:
            size: ``text_config.vocab_size`` of the model.
            folder: The model's folder, for the message.

        Raises:
            UserMistake: If it cannot be: transformers makes up a tokenizer where files are missing.
        """
        with reading("tokenizer of", folder):
            ids = {*self.tokenizer.get_vocab().values(), *self.tokenizer.all_special_ids}
            if not 2 * len(ids) >= size > max(ids, default=-1):
                raise UserMistake(
                    f"{folder}: the tokenizer has {len(ids):,} tokens with ids up to {max(ids, default=-1):,}, and the "
                    f"model a table of {size:,} (text_config.vocab_size): put the model's own tokenizer there"
                )
            words = sorted(ids - set(self.tokenizer.all_special_ids))
            words = words[:: max(1, len(words) // _WORDS_TRIED)]
            texts = [self.tokenizer.decode([word])[:_CHARACTERS_PER_TOKEN] for word in words]
            tokens = self.tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
            found = [text for word, text, own in zip(words, texts, tokens, strict=True) if list(own) == [word]]
            if len(found) < max(2, _MIN_FOUND * len(words)):
                raise UserMistake(
                    f"{folder}: the tokenizer finds {len(found)} of {len(words)} words of its own vocabulary in a "
                    "text, so that different captions are the same to the model: a file of it is missing or another's"
                )
            rows = self(found)
            if len({tuple(row) for row in rows.tolist()}) < len(found) or not rows.equal(self(found)):
                raise UserMistake(
                    f"{folder}: different captions have the same {self.context_length} tokens, or one has others each "
                    "time: the tokenizer, or text_config.max_position_embeddings, is not the model's"
                )

    def _lower_case(self) -> None:
        """Check that case makes no difference."""
        from tokenizers import normalizers

        texts = [text for text in map(self.tokenizer.decode, range(0, len(self.tokenizer), 97)) if text.strip()]
        texts += ["a photo of a dog", "cat"]
        upper, lower = ([change(text) for text in texts] for change in (str.upper, str.lower))
        if self(upper).equal(self(lower)):
            return
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None:
            self.lower_case = True
            return
        self.mended, own = True, backend.normalizer
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *([own] if own is not None else [])])

    def check_end_token(self, configured: int | None, folder: Path) -> None:
        """Check that transformers' CLIP pools at the end token of every caption, cut ones included.

        Args:
            configured: ``text_config.eos_token_id`` of the model.
            folder: The model's folder, for the message.

        Raises:
            UserMistake: If it would pool elsewhere, with what to set.
        """
        if self.tokenizer.padding_side != "right":
            raise UserMistake(
                f"{folder}: the tokenizer pads in front of captions, where CLIP was trained with padding after them; "
                "set padding_side to right in tokenizer_config.json (and padding in tokenizer.json)"
            )
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
