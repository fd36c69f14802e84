"""Language identification by py3langid's model (Lui and Baldwin 2012), for a full batch at once.

py3langid runs an automaton over the bytes of one text. Its state depends only on the last few bytes. So the bytes of
all texts are split into short pieces here, over which the automaton runs in parallel.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from demiglace.cleaning.rules.base import Measurement, Rule, RuleResult
from demiglace.cleaning.text_arrays import Texts
from demiglace.config.options import option
from demiglace.errors import ConfigError, unknown

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_BREAK = b"\xff"  # does not occur in UTF-8, so that no feature continues across it
_DEPTH = 6  # bytes of the longest feature; earlier bytes do not influence the state
_PIECE = 64


@dataclass(frozen=True)
class Language(Rule):
    """Keep documents in these languages."""

    name: ClassVar[str] = "language"

    languages: tuple[str, ...] = option("ISO 639-1 codes", ("en",))
    min_probability: float = option("total probability of these languages, at least", 0.65, at_least=0, at_most=1)
    characters: int = option("characters of a text that are read, from its start", 1000, at_least=1)

    def check(self) -> None:
        """Raise `ConfigError` for a language that the model does not know."""
        for code in self.languages:
            if code not in _model().classes:
                raise ConfigError(unknown("language", code, _model().classes))

    def apply(self, texts: Texts) -> RuleResult:
        """Compute the total probability of the languages; change no text."""
        wanted = np.isin(_model().classes, self.languages)
        values = probabilities([t[: self.characters] for t in texts.texts])[:, wanted].sum(1)
        measure = Measurement(f"probability of {', '.join(self.languages)}", values, at_least=self.min_probability)
        return RuleResult(texts.texts, (measure,))


def probabilities(texts: Sequence[str]) -> np.ndarray:
    """Return the probability of each language [N, languages], in the order of `languages()`."""
    model, encoded = _model(), [_encoded(t) for t in texts]
    counts = _features(encoded)
    lengths = np.maximum(1, [len(e) for e in encoded]).astype(np.float32)
    has_features = np.diff(counts.indptr) > 0
    scores = np.where(has_features[:, None], counts @ model.weights + model.prior, 0) / np.sqrt(lengths)[:, None]
    odds = np.exp(scores - scores.max(1, keepdims=True, initial=-np.inf))
    return (odds / odds.sum(1, keepdims=True)) @ model.merge


def languages() -> tuple[str, ...]:
    """Return the codes of all languages of the model."""
    return _model().classes


@dataclass(frozen=True)
class _Model:
    classes: tuple[str, ...]
    next_state: np.ndarray
    row: np.ndarray
    feature: np.ndarray
    weights: np.ndarray
    prior: np.ndarray
    merge: np.ndarray  # [scripts of languages, languages]; sums the scripts of a language


@cache
def _model() -> _Model:
    raw = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    classes = tuple(dict.fromkeys(raw.nb_classes))
    merge = np.array([[c == name for name in classes] for c in raw.nb_classes], np.float32)
    row = np.asarray(raw.tk_row, np.int64) << 8
    tables = np.asarray(raw.tk_nextmove), row, np.asarray(raw.tk_output, np.int64)
    return _Model(classes, *tables, raw.nb_ptc.astype(np.float32), np.asarray(raw.nb_pc, np.float32), merge)


def _encoded(text: str) -> bytes:
    """Encode a text as in the model's training: lower case if all are capitals, and composed characters (NFC)."""
    text = text.lower() if text.isupper() else text
    text = text if text.isascii() else unicodedata.normalize("NFC", text)
    return text.encode("utf-8", "surrogatepass")


def _features(encoded: Sequence[bytes]) -> "csr_array":
    """Return log(1 + count) of each feature in each text, sparse [N, features]."""
    from scipy.sparse import csr_array

    features = _walk(_BREAK.join(encoded) + _BREAK)
    ends = np.cumsum([len(e) + 1 for e in encoded])
    positions = np.flatnonzero(features >= 0)
    owners = np.searchsorted(ends, positions, side="right")
    shape = (len(encoded), len(_model().weights))
    counts = csr_array((np.ones(len(positions), np.float32), (owners, features[positions])), shape=shape)
    counts.sum_duplicates()
    counts.data = np.log1p(counts.data)
    return counts


def _walk(content: bytes) -> np.ndarray:
    """Return the feature that ends at each byte, or -1; int64 [bytes]."""
    model, pieces = _model(), -(-len(content) // _PIECE)
    padded = np.frombuffer((_BREAK * _DEPTH + content).ljust(_DEPTH + pieces * _PIECE, _BREAK), np.uint8)
    columns = np.ascontiguousarray(sliding_window_view(padded, _DEPTH + _PIECE)[::_PIECE].T)
    state, features = np.zeros(pieces, np.int64), np.empty((_PIECE, pieces), np.int64)
    for offset, column in enumerate(columns):
        state = model.next_state.take(model.row.take(state) + column)
        if offset >= _DEPTH:  # the first bytes of a piece only set the automaton's state
            model.feature.take(state, out=features[offset - _DEPTH], mode="clip")
    return features.T.ravel()[: len(content)]
