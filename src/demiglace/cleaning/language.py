"""Which language a text is in, by py3langid's model (Lui and Baldwin 2012), for a whole batch at once.

py3langid walks an automaton over one text's bytes after another; here all texts of a batch take each step together.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np
from py3langid.langid import MODEL_FILE, LanguageIdentifier
from scipy.sparse import csr_array

from demiglace.cleaning.rule import Measure, Outcome, Rule
from demiglace.cleaning.texts import Texts
from demiglace.config import option
from demiglace.errors import ConfigError, unknown


@dataclass(frozen=True)
class Language(Rule):
    """Documents in the languages that are wanted."""

    name: ClassVar[str] = "language"

    languages: tuple[str, ...] = option("ISO 639-1 codes", ("en",))
    min_probability: float = option("probability that it is one of them, at least", 0.65, at_least=0, at_most=1)
    characters: int = option("how many of a text's first characters are looked at", 1000, at_least=1)

    def check(self) -> None:
        """Raise `ConfigError` for a language that the model does not know."""
        for code in self.languages:
            if code not in _model().classes:
                raise ConfigError(unknown("language", code, _model().classes))

    def apply(self, texts: Texts) -> Outcome:
        """Nothing is changed; the languages' probability is measured."""
        wanted = np.isin(_model().classes, self.languages)
        values = probabilities([t[: self.characters] for t in texts.texts])[:, wanted].sum(1)
        measure = Measure(f"probability of {', '.join(self.languages)}", values, at_least=self.min_probability)
        return Outcome(texts.texts, (measure,))


def probabilities(texts: Sequence[str]) -> np.ndarray:
    """The probability of each language [N, languages], in the order of `languages`."""
    model, encoded = _model(), [_encoded(t) for t in texts]
    counts = _features(encoded)
    lengths = np.maximum(1, [len(e) for e in encoded]).astype(np.float32)
    found = np.diff(counts.indptr) > 0
    scores = np.where(found[:, None], counts @ model.weights + model.prior, 0) / np.sqrt(lengths)[:, None]
    odds = np.exp(scores - scores.max(1, keepdims=True, initial=-np.inf))
    return (odds / odds.sum(1, keepdims=True)) @ model.merge


def languages() -> tuple[str, ...]:
    """The codes of all languages that are known."""
    return _model().classes


@dataclass(frozen=True)
class _Model:
    classes: tuple[str, ...]
    next_state: np.ndarray
    row: np.ndarray
    feature: np.ndarray
    weights: np.ndarray
    prior: np.ndarray
    merge: np.ndarray  # a language has one column for each script, which are added


@cache
def _model() -> _Model:
    raw = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    classes = tuple(dict.fromkeys(raw.nb_classes))
    merge = np.array([[c == name for name in classes] for c in raw.nb_classes], np.float32)
    row = np.asarray(raw.tk_row, np.int64) << 8
    tables = np.asarray(raw.tk_nextmove), row, np.asarray(raw.tk_output, np.int64)
    return _Model(classes, *tables, raw.nb_ptc.astype(np.float32), np.asarray(raw.nb_pc, np.float32), merge)


def _encoded(text: str) -> bytes:
    """As the model was trained: capitals alone are lowered, characters composed."""
    text = text.lower() if text.isupper() else text
    text = text if text.isascii() else unicodedata.normalize("NFC", text)
    return text.encode("utf-8", "surrogatepass")


def _features(encoded: Sequence[bytes]) -> csr_array:
    """log(1 + how often) of each feature in each text, sparse [N, features]."""
    model, lengths = _model(), np.array([len(e) for e in encoded], np.int64)
    order = np.argsort(-lengths, kind="stable")
    letters = _columns([encoded[i] for i in order], lengths[order])
    active = np.searchsorted(-lengths[order], -np.arange(letters.shape[0]), side="left")
    state, seen, rows = np.zeros(len(encoded), np.int64), [], []
    for step, count in enumerate(active):
        state = model.next_state[model.row[state[:count]] + letters[step, :count]].astype(np.int64)
        feature = model.feature[state]
        hit = np.flatnonzero(feature >= 0)
        seen.append(feature[hit])
        rows.append(order[hit])
    shape = (len(encoded), len(model.weights))
    columns, owners = (np.concatenate([np.zeros(0, np.int64), *parts]) for parts in (seen, rows))
    counts = csr_array((np.ones(len(columns), np.float32), (owners, columns)), shape=shape)
    counts.sum_duplicates()
    counts.data = np.log1p(counts.data)
    return counts


def _columns(encoded: Sequence[bytes], lengths: np.ndarray) -> np.ndarray:
    """The texts' bytes side by side, the first bytes of all in the first row; uint8 [longest, N]."""
    width = int(lengths.max(initial=0))
    flat = np.frombuffer(b"".join(e.ljust(width, b"\0") for e in encoded), np.uint8)
    return np.ascontiguousarray(flat.reshape(len(encoded), width).T) if width else np.zeros((0, len(encoded)), np.uint8)
