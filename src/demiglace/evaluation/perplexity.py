"""Evaluation of language models: perplexity by token and by word, bits per byte, last words."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import takewhile
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from demiglace.console import progress
from demiglace.data.batch import Batch
from demiglace.data.batching import collate, forward_tokens
from demiglace.data.text.blocks import Blocks
from demiglace.data.text.text_bounds import TextBounds
from demiglace.data.text.token_shards import Corpus
from demiglace.errors import DataError, ModelError
from demiglace.losses.language import chunk_size, next_token_losses
from demiglace.models.language_model import HeadInput, head_input
from demiglace.models.modes import evaluating
from demiglace.models.precision import autocast


class LogitsModel(Protocol):
    """A language model that is run by another library than PyTorch, such as an exported file."""

    def logits(self, batch: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the logits of each token of texts without padding, float32 [B, L, V]; input_ids: int64 [B, L]."""
        ...


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


def document_windows(corpus: Corpus, bounds: TextBounds, size: int, stride: int) -> list[Window]:
    """Return the windows of each document separately; its end-of-text token is predicted if the tokenizer adds it."""
    found, begin = list[Window](), 0
    for end in corpus.positions(bounds.end).tolist():
        length = end - begin + bounds.adds_end
        found += (Window(begin + w.begin, begin + w.end, begin + w.first) for w in windows(length, size, stride))
        begin = end + 1
    return found


@dataclass(frozen=True)
class PerplexityResult:
    """Scores of a language model, and the numbers that they are sums of, one for each window or text."""

    scores: Mapping[str, float]
    parts: Mapping[str, np.ndarray]


def perplexity(
    model: PreTrainedModel | LogitsModel,
    corpus: Corpus,
    bounds: TextBounds,
    size: int,
    stride: int,
    describe: str | None = None,
) -> PerplexityResult:
    """Compute the perplexity of a causal language model on a corpus, in fp32; each token is predicted once.

    Without a beginning token, documents follow each other, and an end-of-text token precedes the first token and
    separates them. With one, each document is taken separately, and each of its windows begins with that token, whose
    own probability is not scored (as in lm-evaluation-harness). Scores: loss (nats per token) and perplexity =
    exp(loss), predicted ends of text included; without them, so that tokenizers can be compared, word_perplexity =
    exp(Σ nll / words) and bits_per_byte = Σ nll / (ln 2 · bytes of UTF-8); tokens, documents, bytes, words and
    tokens_per_second. Parts: losses, the sum of each window in nats, float64, and its tokens. Raises `ModelError` for a
    loss that is not finite.
    """
    plan = windows(len(corpus), size, stride)
    plan = plan if bounds.begin is None else document_windows(corpus, bounds, size, stride)
    tokens, of_text = np.array([w.end - w.first for w in plan]), 0.0
    sums, total = np.zeros(len(plan)), int(tokens.sum())
    device, begun = _device(model), time.perf_counter()
    # the logits of all tokens of a batch are held where another library computes them, so one window at a time
    most = max(1, forward_tokens(device) // size) if isinstance(model, nn.Module) else 1
    with _evaluating(model), torch.inference_mode(), progress(describe or "predicting", total, "tokens") as bar:
        for numbers in _equal_length_batches(plan, most):
            group = [plan[i] for i in numbers]
            rows = np.stack([_with_token_before(corpus, w, bounds) for w in group])
            losses, targets = _token_losses(model, torch.from_numpy(rows).to(device))
            counts = torch.stack([torch.arange(w.begin, w.end) >= w.first for w in group]).to(device)
            sums[numbers] = (losses.double() * counts).sum(1).tolist()
            of_text += float(losses[counts & (targets != bounds.end)].double().sum())
            bar.advance(sum(w.end - w.first for w in group))
    seconds, loss = max(time.perf_counter() - begun, 1e-9), _finite(sums.sum() / total)
    scores = {
        "loss": loss,
        "perplexity": _exp(loss),
        "word_perplexity": _exp(of_text / max(1, corpus.words)),
        "bits_per_byte": of_text / math.log(2) / max(1, corpus.bytes),
        "tokens": total,
        "documents": corpus.documents,
        "bytes": corpus.bytes,
        "words": corpus.words,
        "tokens_per_second": sum(w.end - w.begin for w in plan) / seconds,
    }
    return PerplexityResult(scores, {"losses": sums, "tokens": tokens})


def _finite(loss: float) -> float:
    """Return a mean loss. Raises `ModelError` if it is not finite."""
    if not math.isfinite(loss):
        raise ModelError(
            f"the model's loss is {loss} and not a finite number; its training diverged or its weights are damaged."
        )
    return loss


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


def _equal_length_batches(plan: Sequence[Window], most: int) -> Iterator[list[int]]:
    """Yield the numbers of the windows in batches of at most `most` of one length, the longest first."""
    lengths = np.array([w.end - w.begin for w in plan])
    order = np.argsort(-lengths, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1):
        yield from (group[i : i + most].tolist() for i in range(0, len(group), most))


def _with_token_before(corpus: Corpus, window: Window, bounds: TextBounds) -> np.ndarray:
    if bounds.begin is None and window.begin:
        return corpus.read(window.begin - 1, window.end)
    first = bounds.end if bounds.begin is None else bounds.begin
    return np.concatenate([[first], corpus.read(window.begin, window.end)])


def _device(model: PreTrainedModel | LogitsModel) -> torch.device:
    return next(model.parameters()).device if isinstance(model, nn.Module) else torch.device("cpu")


def _evaluating(model: PreTrainedModel | LogitsModel) -> AbstractContextManager[object]:
    return evaluating(model) if isinstance(model, nn.Module) else nullcontext()


def _token_losses(model: PreTrainedModel | LogitsModel, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return losses and targets [B, L] of token ids [B, L + 1]."""
    if not isinstance(model, nn.Module):
        logits = torch.from_numpy(model.logits({"input_ids": rows[:, :-1].numpy()}))
        return F.cross_entropy(logits.transpose(1, 2), rows[:, 1:], reduction="none"), rows[:, 1:]
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


def last_words(model: PreTrainedModel | LogitsModel, words: Sequence[LastWord]) -> PerplexityResult:
    """LAMBADA (Paperno et al. 2016, arXiv 1606.06031): predict the last word of a text.

    accuracy: the share of texts whose last word is right, that is, each of its tokens is the most likely one after the
    true ones; perplexity: exp of the mean loss per word, as in Radford et al. 2019. Parts: the loss of each last word
    in nats, float64, and whether it was right. Raises `ModelError` for a loss that is not finite.
    """
    device, right, losses = _device(model), [], []
    with _evaluating(model), torch.inference_mode(), progress("last words", len(words), "texts") as bar:
        for word in words:
            row, count = word.ids, word.count
            logits = _last_logits(model, torch.tensor([row[:-1]], device=device), count)
            targets = torch.tensor(row[-count:], device=device)
            right.append(bool((logits.argmax(-1) == targets).all()))
            losses.append(float(F.cross_entropy(logits, targets, reduction="sum")))
            bar.advance(1)
    loss = _finite(sum(losses) / len(words))
    scores = {"accuracy": sum(right) / len(words), "perplexity": _exp(loss), "texts": len(words)}
    return PerplexityResult(scores, {"losses": np.array(losses), "right": np.array(right)})


def _last_logits(model: PreTrainedModel | LogitsModel, ids: Tensor, count: int) -> Tensor:
    """Return the logits [count, V] of the last positions of a text [1, L]."""
    if not isinstance(model, nn.Module):
        return torch.from_numpy(model.logits({"input_ids": ids.numpy()})[0, -count:])
    with head_input(model) as found:
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
    output = found[0].at(torch.arange(ids.shape[1] - count, ids.shape[1], device=ids.device)[None])
    return F.linear(output.hidden, output.weight, output.bias)


def last_word(tokenizer: PreTrainedTokenizerBase, text: str, size: int, begin: int | None = None) -> LastWord:
    """Return the last word of a text, preceded by as much context as fits into `size` tokens, and by `begin` if given.

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
    first = [] if begin is None else [begin]
    ids = [*first, *ids[-(size + 1 - len(first)) :]]
    if not 0 < count < len(ids):
        raise DataError(
            f"{text[:60]!r} ends in a word of {count} tokens; expected 1 to {size} after at least one other. Leave it "
            "out, or give a larger --block-size."
        )
    return LastWord(ids, count)
