"""Texts as tokens, by a tokenizer that is trained on them or read from disk."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch.utils.data import get_worker_info

from lsdr.representation.data.fields import TextFields

SPECIAL = ("[PAD]", "[UNK]", "[MASK]")
_PADDING = ("[PAD]", "<pad>", "<|pad|>", "<|endoftext|>")
_UNKNOWN = ("[UNK]", "<unk>", "<|endoftext|>")
_MASK = ("[MASK]", "<mask>")


def train_tokenizer(texts: Iterable[str], vocabulary: int, length: int) -> TextFields:
    """A byte-pair tokenizer of these texts, lower case: nothing it is given is unknown to it.

    Source: R. Sennrich, B. Haddow and A. Birch, "Neural Machine Translation of Rare Words with Subword Units", ACL
    2016, on bytes.

    Args:
        texts: What to learn it from.
        vocabulary: How many tokens at most; at least 300, since single bytes and the special tokens are 259.
        length: Tokens of an example.

    Raises:
        ValueError: If `vocabulary` or `length` is too small.
    """
    _check_length(length)
    if vocabulary < 300:
        raise ValueError(f"vocabulary={vocabulary} must be at least 300: single bytes alone are 256 tokens")
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return TextFields(tokenizer.get_vocab_size(), length, tokenizer.to_str())


def read_tokenizer(path: str | Path, length: int) -> TextFields:
    """A tokenizer from disk.

    Args:
        path: A tokenizer.json, or a folder that holds one, as the libraries tokenizers and transformers write them.
        length: Tokens of an example.

    Raises:
        ValueError: If there is none, or it cannot be read.
    """
    _check_length(length)
    path = Path(path).expanduser()
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"there is no {file}; give a tokenizer.json, or a folder with one")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare exceptions
        raise ValueError(f"{file} cannot be read as a tokenizer: {error}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    padding = _special(tokenizer, _PADDING)
    if padding is None:
        tokenizer.add_special_tokens([SPECIAL[0]])
        padding = _special(tokenizer, SPECIAL[:1]) or 0
    unknown = _special(tokenizer, _UNKNOWN)
    mask = _special(tokenizer, _MASK)
    if mask is None:
        tokenizer.add_special_tokens([SPECIAL[2]])
        mask = _special(tokenizer, SPECIAL[2:]) or 0
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
    return TextFields(largest, length, tokenizer.to_str(), padding, mask if unknown is None else unknown, mask)


def encode_texts(texts: Sequence[str], fields: TextFields) -> NDArray[np.int64]:
    """Texts as numbers of tokens, cut or filled up to `fields.length`; shape (n, L).

    Example:
        >>> fields = train_tokenizer(["a rose is a rose"], vocabulary=300, length=4)
        >>> encode_texts(["a rose", ""], fields).shape
        (2, 4)
    """
    return TextEncoder(fields).encode(texts)


class TextEncoder:
    """`encode_texts` that reads its tokenizer once.

    Args:
        fields: Which tokenizer, and how long.
    """

    def __init__(self, fields: TextFields) -> None:
        self.fields = fields
        self._tokenizer = Tokenizer.from_str(fields.tokenizer)
        self._tokenizer.enable_truncation(fields.length)

    def encode(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Shape (n, L)."""
        if get_worker_info() is not None:  # the tokenizer's threads do not survive a fork, and it would say so
            os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        tokens = np.full((len(texts), self.fields.length), self.fields.padding, dtype=np.int64)
        for row, found in zip(tokens, self._tokenizer.encode_batch(list(texts)), strict=True):
            # A text without a token is one unknown token, so that no example is padding alone.
            ids = found.ids or [self.fields.unknown]
            row[: len(ids)] = ids
        return tokens


def _special(tokenizer: Tokenizer, names: Sequence[str]) -> int | None:
    found = (tokenizer.token_to_id(name) for name in names)
    return next((int(each) for each in found if each is not None), None)


def _check_length(length: int) -> None:
    if length < 2:
        raise ValueError(f"length={length} must be at least 2 tokens")
