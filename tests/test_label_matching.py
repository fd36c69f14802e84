"""Matching of labels: what matches, in which order, and what is never merged."""

import shlex

import pytest

from demiglace.errors import DataError
from demiglace.labels import flags, match_all, match_names, pair

GENERIC = ("LABEL_0", "LABEL_1", "LABEL_2")


@pytest.mark.parametrize(
    ("labels", "names", "ids", "means"),
    [
        (("bad", "good"), ("bad", "good"), (0, 1), "name"),
        (("a", "b", "c"), ("c", "a", "b"), (1, 2, 0), "name"),
        (("Polish", "polish"), ("polish", "Polish"), (1, 0), "name"),
        (("a-b", "a_b", "a b"), ("a b", "a-b", "a_b"), (1, 2, 0), "name"),
        (("neutral", "entailment"), ("NEUTRAL", "ENTAILMENT"), (0, 1), "case"),
        (("straße", "été"), ("E\u0301TE\u0301", "STRASSE"), (1, 0), "case"),
        (("A-b", "a_b"), ("A_B", "a-B"), (1, 0), "case"),
        (("entailment", "not_entailment"), ("Not-Entailment", "entailment"), (1, 0), "spelling"),
        (("0", "1"), ("negative", "positive"), (0, 1), "number"),
        (("0", "1", "2"), GENERIC, (0, 1, 2), "number"),
        (("LABEL_0", "LABEL_1"), ("no", "yes"), (0, 1), "number"),
        (("1", "2", "3"), GENERIC, (0, 1, 2), "order"),
        (("blue", "green", "red"), GENERIC, (0, 1, 2), "order"),
        (("LABEL_0", "LABEL_10", "LABEL_2"), ("LABEL_0", "LABEL_2", "LABEL_10"), (0, 2, 1), "name"),
        ((), (), (), "name"),
    ],
)
def test_labels_that_are_the_models(labels, names, ids, means):
    found = match_all(labels, names)
    assert (found.ids, found.means) == (ids, means)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (("bad", "good"), ("no", "yes")),
        (("bad", "good"), ("bad", "good", "none")),
        (("bad", "good"), ()),
        (("POLISH", "polish"), ("Polish", "polish")),  # two could be meant
        (("Polish", "polish"), ("polish", "other")),
        (("A-B", "a b"), ("a_b", "A_b")),
        (("1", "2"), ("negative", "positive")),  # a number is no id of two classes
        (("bad", "good"), ("good", "good")),
    ],
)
def test_labels_that_are_not_the_models(labels, names):
    assert match_all(labels, names) is None


def test_a_name_that_differs_in_case_from_two_is_none_of_them():
    assert pair(["Polish", "POLISH", "x"], ["Polish", "polish", "X"]) == ({"Polish": "Polish", "x": "X"}, "case")


def test_a_part_of_the_models_labels_is_matched_by_name():
    assert match_names(["B"], ["a", "b", "c"]).ids == (1,)


def test_what_is_printed():
    def line(labels, names):
        return match_all(labels, names).line(labels, names)

    assert line(("a", "b"), ("a", "b")) is None
    assert line(("a", "b"), ("b", "a")) == "the model has the labels in another order: b, a."
    assert line(("a", "b"), ("B", "A")) == "labels are matched without regard to case: a = A, b = B."
    assert "0 = no, 1 = yes. --label-map.LABEL MODEL_LABEL changes" in line(("0", "1"), ("no", "yes"))
    assert "have no names; they are taken in the order of the labels: a = LABEL_0" in line(("a", "b", "c"), GENERIC)
    many = tuple(map(str, range(20)))
    assert line(many, tuple(f"c{i}" for i in range(20))).count("=") == 8


def test_a_label_map():
    assert match_all(("bad", "good"), GENERIC[:2], {"good": "LABEL_0", "bad": "label_1"}).ids == (1, 0)
    assert match_all(("bad", "good"), ("Bad", "fine"), {"good": ["fine"]}).ids == (0, 1)
    assert match_all(("bad", "good"), ("x", "fine"), {"good": "fine"}) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"god": "LABEL_0"}, "unknown label of the rows 'god'; did you mean 'good'"),
        ({"good": "LABEL_7"}, "unknown label of the model 'LABEL_7'"),
        ({"good": None}, "--label-map.good was given None; expected one"),
        ({"good": ["LABEL_0", "LABEL_1"], "bad": "LABEL_1"}, "expected one of the teacher's labels"),
        ({"good": "LABEL_0", "bad": "LABEL_0"}, "gives LABEL_0 to several labels"),
    ],
)
def test_label_maps_that_do_not_fit(given, message):
    with pytest.raises(DataError, match=message):
        match_all(("bad", "good"), GENERIC[:2], given)


def test_flags_are_read_by_a_shell():
    assert shlex.split(flags(["so so", "bad"], ["LABEL_0", "it's"])) == [
        *("--label-map.so so", "LABEL_0"),
        *("--label-map.bad", "it's"),
    ]
