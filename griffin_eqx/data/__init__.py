"""Text to batches: corpora, tokenizers, packing, and loaders that are pure functions of the step."""

from griffin_eqx.data.corpora import load_corpus as load_corpus
from griffin_eqx.data.corpus import Corpus as Corpus
from griffin_eqx.data.corpus import Document as Document
from griffin_eqx.data.errors import DataError as DataError
from griffin_eqx.data.loader import EvalLoader as EvalLoader
from griffin_eqx.data.loader import Loader as Loader
from griffin_eqx.data.loader import TrainLoader as TrainLoader
from griffin_eqx.data.packing import IGNORE as IGNORE
from griffin_eqx.data.packing import Batch as Batch
from griffin_eqx.data.packing import TokenStream as TokenStream
from griffin_eqx.data.packing import Window as Window
from griffin_eqx.data.packing import encode_documents as encode_documents
from griffin_eqx.data.packing import pack as pack
from griffin_eqx.data.packing import window as window
from griffin_eqx.data.tokenizer import ByteTokenizer as ByteTokenizer
from griffin_eqx.data.tokenizer import Tokenizer as Tokenizer
from griffin_eqx.data.tokenizer import TokenizerFile as TokenizerFile
from griffin_eqx.data.tokenizers import open_tokenizer as open_tokenizer

__all__ = [
    "IGNORE",
    "Batch",
    "ByteTokenizer",
    "Corpus",
    "DataError",
    "Document",
    "EvalLoader",
    "Loader",
    "TokenStream",
    "Tokenizer",
    "TokenizerFile",
    "TrainLoader",
    "Window",
    "encode_documents",
    "load_corpus",
    "open_tokenizer",
    "pack",
    "window",
]
