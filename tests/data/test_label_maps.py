"""Fitting a set's labels to a model's."""

import pytest

from demiglace.data.rows.label_maps import fit_labels
from demiglace.errors import DataError
from demiglace.labels import is_generic

NLI = ("entailment", "neutral", "contradiction")


def test_equal_names_fit_whatever_their_case_and_order() -> None:
    fit = fit_labels(["negative", "positive"], ["POSITIVE", "NEGATIVE"])
    assert fit.class_map.tolist() == [1, 0]
    assert fit.ids == {"negative": 0, "positive": 1}
    assert fit_labels(["not_entailment"], ["Not-Entailment", "x"]).ids == {"not_entailment": 0}


def test_a_model_with_finer_classes_has_them_merged() -> None:
    table = {"entailment": "entailment", "non-entailment": ["neutral", "contradiction"]}
    fit = fit_labels(["entailment", "non-entailment"], ["contradiction", "entailment", "neutral"], table)
    assert fit.classes.names == ("entailment", "contradiction or neutral")
    assert fit.class_map.tolist() == [1, 0, 1]
    assert fit.ids == {"entailment": 0, "non-entailment": 1}


def test_a_set_with_finer_labels_has_them_merged_or_left_out() -> None:
    table = {"1": "negative", "2": "negative", "3": None, "4": "positive", "5": "positive"}
    fit = fit_labels(list("12345"), ["negative", "positive"], defaults=[{"1": "no such"}, table])
    assert fit.ids == {"1": 0, "2": 0, "3": None, "4": 1, "5": 1}


def test_classes_the_set_does_not_know_remain_wrong_answers() -> None:
    fit = fit_labels(["b"], ["a", "b", "c"])
    assert fit.classes.names == ("b", "a", "c")
    assert fit.class_map.tolist() == [1, 0, 2]
    assert fit_labels(["b"], ["a", "b", "c"], set_order=False).class_map.tolist() == [0, 1, 2]


def test_a_given_map_need_not_name_what_is_equal() -> None:
    fit = fit_labels(["entailment", "other"], NLI, {"other": ["neutral", "contradiction"]})
    assert fit.ids == {"entailment": 0, "other": 1}
    assert fit.class_map.tolist() == [0, 1, 1]


def test_what_is_printed() -> None:
    assert fit_labels(["neutral"], NLI).line is None
    assert fit_labels(["Neutral"], NLI).line == "labels are matched without regard to case: Neutral = neutral."
    given = {"yes": "entailment", "no": ["neutral", "contradiction"], "unsure": None}
    line = "labels are matched by --label-map: yes = entailment, no = neutral or contradiction, unsure left out."
    assert fit_labels(["yes", "no", "unsure"], NLI, given).line == line
    assert fit_labels(["yes"], NLI, defaults=[{"yes": "neutral"}]).line == (
        "labels are matched by the task's own map: yes = neutral."
    )


def test_keys_of_yaml_may_be_numbers() -> None:
    assert fit_labels(["0", "1"], ["no", "yes"], {0: "no", 1: "yes"}).ids == {"0": 0, "1": 1}


@pytest.mark.parametrize(
    ("names", "given", "says"),
    [
        (["a", "b"], {}, r"set's labels \(a, b\).*model's \(entailment, .*--label-map"),
        (["a", "b"], {"a": "entailment"}, "does not name b"),
        (["a"], {"c": "entailment"}, "unknown label of the set 'c'"),
        (["a"], {"a": "entailmnt"}, "unknown label of the model 'entailmnt'; did you mean 'entailment'"),
        (
            ["a", "b"],
            {"a": ["neutral", "entailment"], "b": ["neutral"]},
            "maps two labels of the set to the model's neutral",
        ),
        (["a"], {"a": None}, "leaves no label to evaluate on"),
        (["a"], {"a": []}, "leaves no label to evaluate on"),
    ],
)
def test_maps_that_do_not_fit_are_clear_errors(names: list[str], given: dict[str, object], says: str) -> None:
    with pytest.raises(DataError, match=says):
        fit_labels(names, NLI, given)


def test_generic_names() -> None:
    assert is_generic(["LABEL_0", "LABEL_1"])
    assert not is_generic(["LABEL_0", "yes"])
