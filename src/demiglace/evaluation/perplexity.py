"""Evaluation of language models: perplexity by token and by word, bits per byte, last words."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from demiglace.console import progress
from demiglace.data.batch import Batch
from demiglace.data.batching import collate, forward_tokens
from demiglace.data.text.blocks import Blocks
from demiglace.data.text.token_shards import Corpus
from demiglace.errors import DataError, ModelError
from demiglace.losses.language import chunk_size, next_token_losses
from demiglace.models.language_model import HeadInput, head_input
from demiglace.models.modes import evaluating
from demiglace.models.precision import autocast


@dataclass(frozen=True)
class Window:
    """A window predicts the tokens from `begin` to below `end`; those from `first` on are scored."""

    begin: int
    end: int
    first: int


def windows(tokens: int, size: int, stride: int) -> list[Window]:
    """Return windows of at most `size` tokens that score every token once, with at least size − stride of context.

    stride = size: blocks that do not overlap; a token then has 0 to size − 1 tokens of context.
    """
    found, done = [], 0
    while done < tokens:
        begin = max(0, done - (size - stride))
        end = min(begin + size, tokens)
        found.append(Window(begin, end, done))
        done = end
    return found


@dataclass(frozen=True)
class PerplexityResult:
    """Scores of a language model, and the numbers that they are sums of, one for each window or text."""

    scores: Mapping[str, float]
    parts: Mapping[str, np.ndarray]


def perplexity(
    model: PreTrainedModel, corpus: Corpus, end: int, size: int, stride: int, describe: str | None = None
) -> PerplexityResult:
    """Compute the perplexity of a causal language model on a corpus, in fp32; each token is predicted once.

    end: the end-of-text token, which precedes the first token and separates the documents. Scores: loss (nats per
    token) and perplexity = exp(loss), ends of text included; without them, so that tokenizers can be compared,
    word_perplexity = exp(Σ nll / words) and bits_per_byte = Σ nll / (ln 2 · bytes of UTF-8); tokens, documents, bytes,
    words and tokens_per_second. Parts: losses, the sum of each window in nats, float64, and its tokens. Raises
    `ModelError` for a loss that is not finite.
    """
    plan, sums, of_text = windows(len(corpus), size, stride), [], 0.0
    device, begun = next(model.parameters()).device, time.perf_counter()
    with evaluating(model), torch.inference_mode(), progress(describe or "predicting", len(corpus), "tokens") as bar:
        for group in _equal_length_batches(plan, max(1, forward_tokens(device) // size)):
            rows = np.stack([_with_token_before(corpus, w, end) for w in group])
            losses, targets = _token_losses(model, torch.from_numpy(rows).to(device))
            counts = torch.stack([torch.arange(w.begin, w.end) >= w.first for w in group]).to(device)
            sums += (losses.double() * counts).sum(1).tolist()
            of_text += float(losses[counts & (targets != end)].double().sum())
            bar.advance(sum(w.end - w.first for w in group))
    seconds, loss = max(time.perf_counter() - begun, 1e-9), _finite(sum(sums) / len(corpus))
    scores = {
        "loss": loss,
        "perplexity": _exp(loss),
        "word_perplexity": _exp(of_text / max(1, corpus.words)),
        "bits_per_byte": of_text / math.log(2) / max(1, corpus.bytes),
        "tokens": len(corpus),
        "documents": corpus.documents,
        "bytes": corpus.bytes,
        "words": corpus.words,
        "tokens_per_second": sum(w.end - w.begin for w in plan) / seconds,
    }
    return PerplexityResult(scores, {"losses": np.array(sums), "tokens": np.array([w.end - w.first for w in plan])})


def _finite(loss: float) -> float:
    """Return a mean loss. Raises `ModelError` if it is not finite."""
    if not math.isfinite(loss):
        raise ModelError(
            f"the model's loss is {loss} and not a finite number; its training diverged or its weights are damaged."
        )
    return loss


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


def _equal_length_batches(plan: Sequence[Window], most: int) -> Iterator[list[Window]]:
    """Yield batches of at most `most` consecutive windows of one length."""
    group: list[Window] = []
    for window in plan:
        if group and (len(group) == most or window.end - window.begin != group[0].end - group[0].begin):
            yield group
            group = []
        group.append(window)
    if group:
        yield group


def _with_token_before(corpus: Corpus, window: Window, end: int) -> np.ndarray:
    if window.begin:
        return corpus.read(window.begin - 1, window.end)
    return np.concatenate([[end], corpus.read(0, window.end)])


def _token_losses(model: PreTrainedModel, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return losses and targets [B, L] of token ids [B, L + 1]."""
    with head_input(model) as found:
        model(input_ids=rows[:, :-1], attention_mask=torch.ones_like(rows[:, :-1]))
    return _losses(found[0].at(None), rows[:, 1:]), rows[:, 1:]


def _losses(output: HeadInput, targets: Tensor) -> Tensor:
    chunk = chunk_size(len(output.weight), targets.device.type)
    return next_token_losses(output, targets.flatten(), chunk).view(targets.shape)


def block_loss(model: PreTrainedModel, blocks: Blocks, precision: str) -> dict[str, float]:
    """Return loss (nats per predicted token) and perplexity on blocks; to select among epochs of one run.

    Raises `ModelError` for a loss that is not finite.
    """
    device, total = next(model.parameters()).device, 0.0
    most = max(1, forward_tokens(device) // blocks.size)
    with evaluating(model), torch.inference_mode(), autocast(precision, device):
        for start in range(0, len(blocks), most):
            batch = collate(blocks, np.arange(start, min(start + most, len(blocks))), device)
            total += float(_batch_losses(model, batch).double().sum())
    loss = _finite(total / (len(blocks) * blocks.num_targets))
    return {"loss": loss, "perplexity": _exp(loss)}


def _batch_losses(model: PreTrainedModel, batch: Batch) -> Tensor:
    with head_input(model) as found:
        model(**batch.inputs)
    return _losses(found[0].at(batch.positions), batch.labels)


@dataclass(frozen=True)
class LastWord:
    """A text's token ids, truncated at the start; the last `count` of them are its last word."""

    ids: Sequence[int]
    count: int


def last_words(model: PreTrainedModel, words: Sequence[LastWord]) -> PerplexityResult:
    """LAMBADA (Paperno et al. 2016, arXiv 1606.06031): predict the last word of a text.

    accuracy: the share of texts whose last word is right, that is, each of its tokens is the most likely one after the
    true ones; perplexity: exp of the mean loss per word, as in Radford et al. 2019. Parts: the loss of each last word
    in nats, float64, and whether it was right. Raises `ModelError` for a loss that is not finite.
    """
    device, right, losses = next(model.parameters()).device, [], []
    with evaluating(model), torch.inference_mode(), progress("last words", len(words), "texts") as bar:
        for word in words:
            row, count = word.ids, word.count
            ids = torch.tensor([row[:-1]], device=device)
            with head_input(model) as found:
                model(input_ids=ids, attention_mask=torch.ones_like(ids))
            output = found[0].at(torch.arange(len(row) - 1 - count, len(row) - 1, device=device)[None])
            targets = torch.tensor(row[-count:], device=device)
            logits = F.linear(output.hidden, output.weight, output.bias)
            right.append(bool((logits.argmax(-1) == targets).all()))
            losses.append(float(F.cross_entropy(logits, targets, reduction="sum")))
            bar.advance(1)
    loss = _finite(sum(losses) / len(words))
    scores = {"accuracy": sum(right) / len(words), "perplexity": _exp(loss), "texts": len(words)}
    return PerplexityResult(scores, {"losses": np.array(losses), "right": np.array(right)})


def last_word(tokenizer: PreTrainedTokenizerBase, text: str, size: int) -> LastWord:
    """Return the last word of a text, preceded by as much context as fits into `size` tokens.

    Words are separated by white space. The word's tokens are those in which the text differs from its context: from the
    white space before the word on, and earlier if the tokenizer joins that to the context. Raises `DataError` for a
    text of fewer than two words, and for a word of no token or of more than `size`.
    """
    text = text.rstrip()
    if len(words := text.split()) < 2:
        raise DataError(f"{text[:60]!r} has no last word to predict: fewer than two words; leave it out.")
    context = text[: -len(words[-1]) - 1]
    prefix, ids = (tokenizer(t, add_special_tokens=False, verbose=False)["input_ids"] for t in (context, text))
    shared = takewhile(lambda pair: pair[0] == pair[1], zip(prefix, ids, strict=False))
    count = len(ids) - len(list(shared))
    ids = ids[-(size + 1) :]
    if not 0 < count < len(ids):
        raise DataError(
            f"{text[:60]!r} ends in a word of {count} tokens; expected 1 to {size} after at least one other. Leave it "
            "out, or give a larger --block-size."
        )
    return LastWord(ids, count)
