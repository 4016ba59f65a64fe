"""Makes `griffin_eqx/data/shakespeare.model`, the vocabulary that `--data.tokenizer shakespeare` reads.

    python experiments/corpora/build_vocabulary.py

A SentencePiece model of byte pairs, trained on the training plays alone. No text is changed by it: nothing is
normalised, line ends are pieces, and a letter that the plays do not have becomes its bytes. With the version of
sentencepiece in `constraints.txt` it is the same file everywhere. The script prints the SHA-256 that belongs in
`griffin_eqx/data/shakespeare.py`, and how many bytes a token stands for in each split.
"""

import hashlib
import io
from pathlib import Path

import sentencepiece

from griffin_eqx.data.corpora import load_corpus
from griffin_eqx.data.shakespeare import VOCABULARY

TARGET = Path(__file__).parents[2] / "griffin_eqx" / "data" / VOCABULARY
PIECES = 2048


def main() -> None:
    """Writes the file and says what came of it."""
    corpus = load_corpus("shakespeare")
    lines = (line for play in corpus.splits["train"] for line in play.text.decode().split("\n") if line)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=lines,
        model_writer=model,
        model_type="bpe",
        vocab_size=PIECES,
        user_defined_symbols=["\n\n", "\n"],
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        minloglevel=2,
    )
    TARGET.write_bytes(model.getvalue())
    print(
        f"{TARGET.name}: {len(model.getvalue()):,} bytes, SHA-256 {hashlib.sha256(model.getvalue()).hexdigest()}"
    )
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    for split, plays in corpus.splits.items():
        tokens = sum(len(pieces.encode(play.text.decode())) for play in plays)
        print(f"{split}: {corpus.num_bytes(split) / tokens:.2f} bytes a token")


if __name__ == "__main__":
    main()
