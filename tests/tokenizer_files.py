"""Small tokenizers of every kind, trained here by the libraries themselves: as files."""

import io
import json
from pathlib import Path

import sentencepiece
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from griffin_eqx.data import load_corpus

SPACE = "\u2581"


def lines():
    (play, *_) = load_corpus("shakespeare-1m").splits["train"]
    return play.text.decode().splitlines(keepends=True)[:2000]


def byte_level(folder: Path, *, vocab_size=400, prefix_space=False) -> Path:
    """A `tokenizer.json` as GPT-2's."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines(), trainer)
    path = folder / f"byte_level{vocab_size}{prefix_space}.json"
    tokenizer.save(str(path))
    return path


def byte_fallback(folder: Path) -> Path:
    """A `tokenizer.json` as Gemma's: spaces become a letter, unknown letters their bytes."""
    pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.pre_tokenizer = pre_tokenizers.Split("\n", "isolated")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=["<pad>", "<eos>", "<bos>", "<unk>", *pieces], show_progress=False
    )
    tokenizer.train_from_iterator(lines(), trainer)
    path = folder / "byte_fallback.json"
    tokenizer.save(str(path))
    # The trainer knows byte pieces as special tokens only; in Gemma's file they are of the vocabulary alone.
    tree = json.loads(path.read_text())
    tree["added_tokens"] = [token for token in tree["added_tokens"] if token["content"] not in pieces]
    path.write_text(json.dumps(tree))
    return path


def sentencepiece_model(folder: Path, *, vocab_size=420, prefix=False, normalization="identity") -> Path:
    """A `tokenizer.model` with RecurrentGemma's special ids: pad 0, eos 1, bos 2."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines()),
        model_writer=model,
        vocab_size=vocab_size,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name=normalization,
        remove_extra_whitespaces=normalization != "identity",
        add_dummy_prefix=prefix,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        minloglevel=2,
    )
    path = folder / f"sentencepiece{prefix}{normalization}.model"
    path.write_bytes(model.getvalue())
    return path
