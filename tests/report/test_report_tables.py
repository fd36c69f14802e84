from pathlib import Path

import pytest
from report_runs import write_demo, write_training

from demiglace.report import format
from demiglace.report.runs.load import collect
from demiglace.report.runs.tables import artefact_table, evaluation_table, model_table, rows_table
from demiglace.report.tables import Table


def best(table: Table, column: str) -> list[str]:
    i = [c.title for c in table.columns].index(column)
    return [row[0].text for row in table.rows if row[i].best]


def test_the_best_of_each_column_is_marked(tmp_path: Path) -> None:
    table = model_table(collect([write_demo(tmp_path)]).experiments[0])
    assert best(table, "Accuracy") == ["teacher"]
    assert best(table, "Parameters") == ["distilled", "baseline"]  # equal ones share it
    assert best(table, "Latency p50") == ["distilled"]
    assert best(table, "Agreement with teacher") == ["distilled"]
    assert best(table, "Layers") == [] and best(table, "Capture") == []
    assert table.marks == ("teacher", "distilled", "baseline")


def test_an_error_is_best_where_it_is_lowest(tmp_path: Path) -> None:
    runs = [
        write_training(tmp_path / n, "finetune", {"model": "m"}, None, metrics={"test": {"mse": v}})
        for n, v in (("a", 0.3), ("b", 0.2))
    ]
    table = model_table(collect(runs).experiments[0])
    assert best(table, "Mean squared error") == ["b"]
    assert best(table, "Parameters") == []  # all alike


def test_columns_without_a_number_are_left_out(tmp_path: Path) -> None:
    run = write_training(tmp_path / "run", "finetune", {"model": "m"}, 0.9)
    titles = [c.title for c in model_table(collect([run]).experiments[0]).columns]
    assert "Accuracy" in titles and "Latency p50" not in titles and "Capture" not in titles


def test_exported_files_are_told_with_their_parity(tmp_path: Path) -> None:
    table = artefact_table(collect([write_demo(tmp_path)]).artefacts)
    cells = {row[0].text: [c.text.replace("\u00a0", " ") for c in row[1:]] for row in table.rows}
    assert list(cells) == ["PyTorch teacher", "PyTorch · distilled", "ONNX fp32 · distilled", "ONNX int8 · distilled"]
    assert cells["ONNX int8 · distilled"] == [
        "model_quantized.onnx", "17.6 MB", "1.60 ms", "2.08 ms", "32.0 ms", "38.4 ms", "210 MB", "99.2 %", "0.41",
    ]  # fmt: skip


def test_other_sets_are_told_by_model(tmp_path: Path) -> None:
    table = evaluation_table(collect([write_demo(tmp_path)]).evaluations)
    assert [c.title for c in table.columns][:4] == ["Set", "Model", "Rows", "Accuracy"]
    assert {row[1].text for row in table.rows} == {"distilled", "baseline"}


def test_models_that_saw_the_same_rows_share_a_line(tmp_path: Path) -> None:
    demo = write_demo(tmp_path)
    options = {"model": "m", "max_rows": 100}
    write_training(demo / "few", "finetune", options, 0.5, rows={"train": 100}, drops={"empty text": 2})
    table = rows_table(collect([demo]).experiments[0])
    assert [row[0].text for row in table.rows] == ["teacher, distilled, baseline", "few"]
    assert [c.title for c in table.columns][-1] == "left out: empty text"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (format.share(0.9184), "91.8 %"),
        (format.share(None), "–"),
        (format.parameters(22_713_216), "22.7 M"),
        (format.parameters(8_432), "8.43 k"),
        (format.parameters(77_949), "77.9 k"),
        (format.parameters(999_960), "1.00 M"),
        (format.parameters(1_240_000_000), "1.24 B"),
        (format.parameters(812), "812"),
        (format.size(90_900_000), "90.9 MB"),
        (format.milliseconds(0.234), "0.234 ms"),
        (format.milliseconds(1_046), "1.05 s"),
        (format.milliseconds(14.51), "14.5 ms"),
        (format.milliseconds(290.4), "290 ms"),
        (format.seconds(168.3), "168 s"),
        (format.seconds(0.52), "0.520 s"),
        (format.seconds(1.05), "1.05 s"),
        (format.seconds(0.0), "0 s"),
        (format.seconds(12_345), "12,345 s"),
        (format.size(310_000), "310 kB"),
        (format.score(0.5631, "matthews"), "56.3"),
        (format.score(0.5631, "macro_f1"), "56.3"),
        (format.score(0.3, "mse"), "0.300"),
        (format.score(None, "mse"), "–"),
        (format.signed(-0.0123, "accuracy"), "−1.2"),
        (format.signed(0.0001, "accuracy"), "0.0"),
        (format.small(1.94e-6), "1.9e-06"),
        (format.shorten("a" * 100, 11), "aaaaa…aaaaa"),
        (format.shorten("short"), "short"),
        (format.shorten("a\u202eb\u2066c"), "abc"),
    ],
)
def test_quantities_are_written_one_way(written: str, expected: str) -> None:
    assert written.replace("\u00a0", " ") == expected
