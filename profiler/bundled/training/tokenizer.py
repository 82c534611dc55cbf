"""The bundled model's tokenizer: byte-level BPE trained on the train split of the bundled corpus.

Why: circuits are read token by token, so the tokenizer keeps readable units. Names, argument names, months and
weekdays of the tasks are single tokens with their leading space; digits come in pairs without a space, so every
two-digit ending of a year is one token; and no token crosses a word boundary.

The special token `<|endoftext|>` has id 0 and serves as beginning, end and padding. The tokenizer does not add it:
the caller puts it in front of every window, as it was in training.

Cost: half a minute on one core for the whole corpus.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from profiler.prompts.tasks import words

END_OF_TEXT = "<|endoftext|>"
BYTES = 256
"""Entries of the vocabulary that any text can be spelt with."""
_SPLIT = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_SPACE = "Ġ"
"""How byte-level BPE writes a space."""


def whole_words() -> list[str]:
    """The words that become one token each, spelt as in the vocabulary, without duplicates."""
    spaced = [*words.NAMES_TRAIN, *words.untrained(), *words.PLACES, *words.OBJECTS]
    spaced += [*words.ARGUMENTS_TRAIN, *words.WEEKDAYS, *words.MONTHS]
    pairs = [f"{i:02d}" for i in range(100)]
    return list(dict.fromkeys([_SPACE + word for word in spaced] + pairs))


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Learn a vocabulary of exactly `vocabulary` tokens, or fewer where the texts are short.

    BPE is learned first, for as many tokens as are left beside the words of `whole_words`; those of them that BPE did
    not find are then added as entries of their own, reached because the model looks up a whole word before it
    applies merges.

    Args:
        texts: documents of the train split only.
        vocabulary: number of token ids, at least 256 bytes + the special token + the whole words.

    Raises:
        ValueError: where `vocabulary` has no room for bytes and whole words.
    """
    room = vocabulary - len(whole_words())
    if room <= BYTES + len([END_OF_TEXT]):
        raise ValueError(f"a vocabulary of {vocabulary} has no room for bytes and {len(whole_words())} whole words")
    texts = list(texts)
    learned = _learn(texts, room)
    missing = [word for word in whole_words() if learned.token_to_id(word) is None]
    if len(missing) < len(whole_words()):
        learned = _learn(texts, vocabulary - len(missing))
    return PreTrainedTokenizerFast(
        tokenizer_object=_with_words(learned),
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
    )


def _learn(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[END_OF_TEXT], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _with_words(learned: Tokenizer) -> Tokenizer:
    description = json.loads(learned.to_str())
    vocabulary = description["model"]["vocab"]
    for word in whole_words():
        vocabulary.setdefault(word, len(vocabulary))
    description["model"]["ignore_merges"] = True
    return Tokenizer.from_str(json.dumps(description))


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write `tokenizer.json` (compact) and `tokenizer_config.json`, loadable with `AutoTokenizer` offline."""
    tokenizer.save_pretrained(folder)
    whole, settings = Path(folder) / "tokenizer.json", Path(folder) / "tokenizer_config.json"
    compact = json.dumps(json.loads(whole.read_text("utf-8")), separators=(",", ":"), ensure_ascii=False)
    whole.write_text(compact, "utf-8")
    own_settings = {k: v for k, v in json.loads(settings.read_text("utf-8")).items() if k not in _LOADING_ONLY}
    settings.write_text(json.dumps(own_settings, indent=2) + "\n", "utf-8")


_LOADING_ONLY = {"is_local", "local_files_only"}
"""Settings of how a tokenizer was loaded, not of the tokenizer."""
