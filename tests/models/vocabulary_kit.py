"""Tokenizers of every kind, trained on made-up words, and random texts of them."""

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_SYLLABLES = ("ba", "lan", "ce", "trans", "fer", "card", "pay", "ment", "ing", "ed", "ä", "ro", "un", "s", "to", "7")


def random_texts(count: int, seed: int, words: int = 6) -> list[str]:
    """Texts of words of one to four syllables, some with signs and upper case."""
    generator = np.random.default_rng(seed)

    def word() -> str:
        made = "".join(generator.choice(_SYLLABLES, generator.integers(1, 5)))
        return str(generator.choice([made, made, made.upper(), made + "!", "(" + made]))

    return [" ".join(word() for _ in range(generator.integers(1, words))) for _ in range(count)]


def tokenizer_of(kind: str, size: int = 300) -> PreTrainedTokenizerFast:
    """A tokenizer of a kind: wordpiece, byte-bpe, sentencepiece-bpe (byte fallback), suffix-bpe, unigram."""
    corpus, special = random_texts(400, seed=1), {"special_tokens": SPECIAL, "show_progress": False}
    match kind:
        case "wordpiece":
            core = Tokenizer(models.WordPiece(unk_token="[UNK]"))
            core.normalizer, core.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
            core.train_from_iterator(corpus, trainers.WordPieceTrainer(vocab_size=size, **special))
            core.decoder = decoders.WordPiece()
        case "byte-bpe":
            core = Tokenizer(models.BPE())
            core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            alphabet = pre_tokenizers.ByteLevel.alphabet()
            core.train_from_iterator(
                corpus, trainers.BpeTrainer(vocab_size=size + 256, initial_alphabet=alphabet, **special)
            )
            core.decoder = decoders.ByteLevel()
        case "sentencepiece-bpe":
            core = Tokenizer(models.BPE(unk_token="[UNK]", byte_fallback=True, fuse_unk=True))
            core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
            fallback = [f"<0x{byte:02X}>" for byte in range(256)]
            trainer = trainers.BpeTrainer(vocab_size=size + 256, **special | {"special_tokens": [*SPECIAL, *fallback]})
            core.train_from_iterator(corpus, trainer)
            steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
            core.decoder = decoders.Sequence(steps)
        case "suffix-bpe":
            core = Tokenizer(models.BPE(unk_token="[UNK]", end_of_word_suffix="</w>"))
            core.normalizer, core.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
            core.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=size, end_of_word_suffix="</w>", **special))
            core.decoder = decoders.BPEDecoder()
        case "unigram":
            core = Tokenizer(models.Unigram())
            core.pre_tokenizer, core.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
            core.train_from_iterator(corpus, trainers.UnigramTrainer(vocab_size=size, unk_token="[UNK]", **special))
    ids = [(token, core.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=ids
    )
    names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    unknown = {} if kind == "byte-bpe" else {"unk_token": "[UNK]"}
    return PreTrainedTokenizerFast(tokenizer_object=core, **names, **unknown)


KINDS = ("wordpiece", "byte-bpe", "sentencepiece-bpe", "suffix-bpe", "unigram")
