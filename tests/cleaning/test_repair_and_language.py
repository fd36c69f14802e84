"""Unicode repair against ftfy, and language identification against py3langid."""

import ftfy
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from demiglace.cleaning.rules import language
from demiglace.cleaning.rules.language import Language, languages, probabilities
from demiglace.cleaning.rules.repair import _CONFIG, Repair
from demiglace.data.text.streams import plain_line_ends
from demiglace.errors import ConfigError

BROKEN = [
    "sÃ³",
    "â€™",
    "Ã©",
    "&amp;",
    "&lt;b&gt;",
    "<b>",
    "\x1b[31m",
    "\x00",
    "\x85",
    "\ufeff",
    "\ud83d\ude00",
    "Â ",
    "œ ",
]
PLAIN = ["word ", "é", "“quoted”", "—", "…", "日本", "п", "°", "\n", " ", "& ", "naïve"]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(BROKEN + PLAIN), max_size=12).map("".join) | st.text(max_size=30))
@example("Ã only")
@example("œ")
@example("a\x80b")
@example("<a>\n&amp;")
@example("&amp;\n<a>")
@example("\r")
def test_repair_is_ftfys(text: str) -> None:
    assert Repair()([text]).texts[0] == ftfy.fix_text(plain_line_ends(text), _CONFIG)


def test_what_needs_no_repair_is_the_same_object() -> None:
    texts = ["Plain text, “quoted” – naïve…\n", "sÃ³"]
    result = Repair()(texts)
    assert result.texts[0] is texts[0]
    assert result.texts[1] == "só"
    assert result.measurements[0].values.tolist() == [0, 1]
    assert result.keep.all()


class Counting(str):
    """A text that counts the characters that are copied out of it."""

    copied = 0

    def __getitem__(self, piece):
        part = super().__getitem__(piece)
        Counting.copied += len(part)
        return part


def test_lines_are_mended_without_going_over_those_before_them() -> None:
    text = Counting("a &amp; b\n" * 300)
    assert Repair()([text]).texts[0] == "a & b\n" * 300
    assert Counting.copied <= 3 * len(text)


TEXTS = [
    "This is a perfectly ordinary English sentence about the weather.",
    "Das ist ein ganz gewöhnlicher deutscher Satz über das Wetter.",
    "Ceci est une phrase française tout à fait ordinaire.",
    "这是一个关于天气的普通句子。",
    "SHOUTED ENGLISH WORDS ARE STILL ENGLISH",
    "",
    "?",
]


def test_languages_are_py3langids() -> None:
    one_by_one = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    found = probabilities(TEXTS)
    for text, row in zip(TEXTS, found, strict=True):
        name, confidence = one_by_one.classify(text)
        assert row.max() == pytest.approx(confidence, abs=1e-4)
        if confidence > 0.1:
            assert languages()[row.argmax()] == name
    assert found.sum(1) == pytest.approx(1, abs=1e-4)


def test_a_text_does_not_depend_on_those_beside_it() -> None:
    alone = np.concatenate([probabilities([t]) for t in TEXTS])
    assert probabilities(TEXTS) == pytest.approx(alone, abs=1e-5)


def test_pieces_find_what_one_walk_over_all_bytes_finds() -> None:
    model, state, expected = language._model(), 0, []
    content = b"\xff".join(" ".join(TEXTS[k:]).encode() for k in range(len(TEXTS)))
    for byte in content:
        state = int(model.next_state[model.row[state] + byte])
        expected.append(int(model.feature[state]))
    assert language._walk(content).tolist() == expected
    assert len(content) > 10 * language._PIECE


def test_no_feature_is_longer_than_the_way_into_a_piece() -> None:
    model, unseen, new, depth = language._model(), np.ones(len(language._model().row), bool), np.zeros(1, np.int64), -1
    while len(new):  # the states first reached by one byte, by two, ...
        unseen[new] = False
        behind = np.unique(model.next_state[model.row[new][:, None] + np.arange(256)])
        new, depth = behind[unseen[behind]], depth + 1
    assert depth == language._DEPTH


def test_documents_in_wanted_languages_are_kept() -> None:
    assert Language()(TEXTS[:4]).keep.tolist() == [True, False, False, False]
    assert Language(languages=("de", "fr"))(TEXTS[:4]).keep.tolist() == [False, True, True, False]
    with pytest.raises(ConfigError, match="unknown language 'english'"):
        Language(languages=("english",)).check()
