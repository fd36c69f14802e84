"""tokenizer, pretrain, distill --corpus, evaluate --corpus and generate, each from its command line."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from command_kit import arguments, close, in_child, records, strike, weights
from huggingface_hub import ModelCard
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import demiglace
from demiglace.cli import main
from demiglace.config.data import ReadConfig
from demiglace.config.options import read_yaml
from demiglace.data.batching import epoch_steps
from demiglace.data.text import token_shards as corpora
from demiglace.data.text.blocks import all_blocks
from demiglace.methods.registry import METHODS
from demiglace.models.language_model import load_language_model
from demiglace.models.loading import save_model
from demiglace.runs.directory import read_manifest
from demiglace.training import loop
from factories import save_tiny
from text_kit import begin_texts, byte_tokenizer, save_lm, sentences, tiny_lm, write_jsonl

RECIPES = Path(__file__).parent.parent.parent / "recipes"
QUICK = {"block_size": 16, "epochs": 2, "batch_size": 8, "learning_rate": 1e-2, "log_steps": 1}
SAVED = QUICK | {"checkpoint_seconds": 0}  # a checkpoint after every step
SIZES = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "intermediate_size": 64}


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("text")
    return {
        "corpus": str(write_jsonl(home / "train.jsonl", sentences(40))),
        "validation_corpus": str(write_jsonl(home / "validation.jsonl", sentences(8, seed=1))),
    }


@pytest.fixture(scope="session")
def lm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_lm(tmp_path_factory.mktemp("lm") / "gpt2")


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    byte_tokenizer(path, mask=True)
    return path


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory, lm: Path, text: dict[str, str]) -> Path:
    output = tmp_path_factory.mktemp("teacher") / "run"
    assert main(arguments("pretrain", model=lm, output=output, **text, **QUICK)) == 0
    return output


def losses(run: Path) -> list[float]:
    return [r["metrics"]["loss"] for r in records(run, "epoch")]


def test_a_tokenizer_is_trained_and_says_every_text(tmp_path: Path, text: dict[str, str]) -> None:
    line = arguments("tokenizer", corpus=text["corpus"], vocab_size=270, output=tmp_path / "t", mask_token="true")
    assert main([*line[:1], "train", *line[1:]]) == 0
    trained = AutoTokenizer.from_pretrained(tmp_path / "t")
    assert len(trained) == 270 and trained.eos_token_id == 0 and trained.mask_token_id == 1
    assert trained.pad_token_id == 2  # a masked model is to tell padding from ends of text
    for said in ("the cat sat", "naïve 🎈", "\x00\n"):
        assert trained.decode(trained(said)["input_ids"]) == said
    assert len(trained("the cat")["input_ids"]) < len("the cat")
    assert main([*line[:1], "train", *line[1:]]) == 0


def test_what_a_tokenizer_cannot_be_trained_on(
    tmp_path: Path, text: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    empty = write_jsonl(tmp_path / "empty.jsonl", [" "])
    binary = write_jsonl(tmp_path / "binary.jsonl", ["\0\1\2"])
    bad = (
        (text["corpus"], 5000, "tokens and no more"),
        (empty, 300, "holds no text (empty 1)"),
        (binary, 299, "holds no text (binary 1)"),
    )
    for corpus, size, said in bad:
        line = arguments("tokenizer", corpus=corpus, vocab_size=size, output=tmp_path / str(size))
        assert main([*line[:1], "train", *line[1:]]) == 2
        assert said in capsys.readouterr().err


def test_a_tokenizer_that_cannot_be_written(
    tmp_path: Path, text: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(PreTrainedTokenizerFast, "save_pretrained", full)
    line = arguments("tokenizer", corpus=text["corpus"], vocab_size=270, output=tmp_path / "t")
    assert main([*line[:1], "train", *line[1:]]) == 2
    assert "could not be written (No space left on device); make room" in " ".join(capsys.readouterr().err.split())


def test_all_that_is_left_out_is_said_and_kept(
    tmp_path: Path, lm: Path, text: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Of what a tokenizer is trained on, a validation corpus, and what is evaluated on."""
    spoilt = write_jsonl(tmp_path / "spoilt.jsonl", [*sentences(30, seed=2), "é" * 900, "\0 \0", " "])
    limit, lost = {"max_document_mb": 0.001}, {"too long": 1, "binary": 1, "empty": 1}
    line = arguments("tokenizer", corpus=spoilt, vocab_size=270, output=tmp_path / "t", **limit)
    assert main([*line[:1], "train", *line[1:]]) == 0
    said, found = capsys.readouterr().err, read_manifest(tmp_path / "t")
    assert "left out: binary 1, empty 1, too long 1" in said and found["drops"] == lost
    assert found["documents"] == 30 and found["bytes"] == found["characters"]
    line = arguments("pretrain", model=lm, output=tmp_path / "run", **text | {"validation_corpus": spoilt}, **QUICK)
    assert main([*line, "--max-document-mb", "0.001"]) == 0
    assert "left out of the validation corpus: binary 1, empty 1, too long 1" in capsys.readouterr().err
    found = read_manifest(tmp_path / "run")
    assert found["drops"] == {} and found["validation corpus"]["drops"] == lost
    line = arguments("evaluate", corpus=spoilt, lambada=spoilt, output=tmp_path / "scores", block_size=16, **limit)
    assert main(["evaluate", str(lm), *line[1:]]) == 0
    said, sets = capsys.readouterr().err, read_manifest(tmp_path / "scores")["sets"]
    assert list(sets) == [str(spoilt), f"{spoilt} (last words)"]  # one does not write over the other
    for name, found in sets.items():
        assert f"left out of {name}: binary 1, empty 1, too long 1" in said and found["left_out"] == lost
    assert "perplexity" in sets[str(spoilt)]["metrics"] and "accuracy" in sets[f"{spoilt} (last words)"]["metrics"]


@pytest.mark.parametrize("arch", ["gpt2", "llama", "bert"])
def test_a_new_model_learns(
    tmp_path: Path, tokenizer: Path, text: dict[str, str], arch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = {"architecture": arch, "tokenizer": tokenizer, **SIZES}
    assert (
        main(
            arguments(
                "pretrain", **new, output=tmp_path / "run", **text, **QUICK | {"epochs": 3, "learning_rate": 3e-3}
            )
        )
        == 0
    )
    said = read_manifest(tmp_path / "run")
    assert said["metrics"]["validation"]["loss"] < losses(tmp_path / "run")[0] < 5.6
    assert (
        said["layers"] == 2
        and said["corpus"]["documents"] == 40
        and said["rows"]["train"] * 16 == said["tokens"]["train"]
    )
    assert not (tmp_path / "run" / "tokens").exists() and not (tmp_path / "run" / "checkpoints").exists()
    load_language_model(str(tmp_path / "run"))
    card = ModelCard.load(tmp_path / "run" / "model" / "README.md")
    assert card.data.pipeline_tag == ("fill-mask" if arch == "bert" else "text-generation")
    assert "A language model of 2 layers, trained on text." in card.text
    assert f"**Initialised from:** a new {arch}" in card.text
    made: dict[str, object] = {}
    monkeypatch.chdir(tmp_path / "run" / "model")
    exec(card.text.split("```python")[1].split("```")[0], made)


def test_without_validation_text_the_last_blocks_are_held_out(tmp_path: Path, lm: Path, text: dict[str, str]) -> None:
    given = {"model": lm, "corpus": text["corpus"], "epochs": 1}
    assert main(arguments("pretrain", **given, output=tmp_path / "all", block_size=16)) == 0
    said = read_manifest(tmp_path / "all")
    whole = (said["corpus"]["tokens"] - 1) // 16
    assert said["rows"] == {"train": whole - max(1, whole // 100), "validation": max(1, whole // 100)}
    assert main(arguments("pretrain", **given, output=tmp_path / "some", block_size=16, max_tokens=320)) == 0
    assert read_manifest(tmp_path / "some")["rows"]["train"] == 20


@pytest.mark.parametrize("at", [1, 7])
def test_a_killed_run_resumes_inside_the_epoch(tmp_path: Path, lm: Path, text: dict[str, str], at: int) -> None:
    line = arguments("pretrain", model=lm, output=tmp_path / "cut", **text, **SAVED, dropout=0.1)
    whole = arguments("pretrain", model=lm, output=tmp_path / "whole", **text, **QUICK, dropout=0.1)
    assert main(whole) == 0
    assert in_child(line, lambda: strike(loop, "save_checkpoint", at, after=True)) < 0
    assert main(line) == 0
    close(tmp_path / "cut", tmp_path / "whole", 0.0)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


def test_killed_while_tokenizing(tmp_path: Path, lm: Path, text: dict[str, str]) -> None:
    line = arguments("pretrain", model=lm, output=tmp_path / "cut", **text, **QUICK)
    assert in_child(line, lambda: strike(corpora, "_write")) < 0
    assert main(line) == 0


def test_token_files_can_be_shared(tmp_path: Path, lm: Path, text: dict[str, str]) -> None:
    for name in ("one", "two"):
        line = arguments("pretrain", model=lm, output=tmp_path / name, **text, **QUICK, token_files=tmp_path / "tokens")
        assert main(line) == 0
    assert len(list(tmp_path.glob("tokens/*/corpus.json"))) == 2
    assert main(arguments("pretrain", model=lm, output=tmp_path / "own", **text, **QUICK)) == 0
    close(tmp_path / "own", tmp_path / "two", 0.0)


FOR_ROWS = ("mate-kd", "combined-kd", "rail-mate", "universal-kd")


@pytest.mark.parametrize("method", [name for name in METHODS if name not in FOR_ROWS])
def test_a_student_learns_by_any_method(tmp_path: Path, teacher: Path, text: dict[str, str], method: str) -> None:
    run = tmp_path / "run"
    student = {"teacher": teacher, "layers": 2, "method": method}
    assert main(arguments("distill", **student, output=run, **text, **QUICK | {"epochs": 3, "log_steps": 10})) == 0
    said = read_manifest(run)
    assert said["layers"] == 2 and said["problem"] == "language-modelling" and said["method"] == method
    assert losses(run)[-1] < losses(run)[0] or method in ("annealing-kd", "rail-annealing", "tinybert")
    if method != "none":
        shares = records(run, "step")[-1]["shares"]
        assert sum(shares.values()) == pytest.approx(1.0)


def test_a_masked_student_learns(tmp_path: Path, text: dict[str, str]) -> None:
    teacher, gentle = tmp_path / "teacher", QUICK | {"learning_rate": 3e-3}
    assert main(arguments("pretrain", model=save_lm(tmp_path / "bert", "bert"), output=teacher, **text, **gentle)) == 0
    run, given = tmp_path / "run", {"teacher": teacher, "method": "distil", "layers": 2}
    assert main(arguments("distill", **given, output=run, **text, **gentle)) == 0
    assert losses(run)[-1] < losses(run)[0] and records(run, "step")[-1]["terms"]["kd"] > 0


def test_the_logits_of_a_teacher_without_a_head_are_refused(
    tmp_path: Path, text: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    classifier = save_tiny(tmp_path / "classifier", "bert")
    given = {"teacher": classifier, "layers": 2, **text, **QUICK}
    assert main(arguments("distill", **given, method="vanilla-kd", output=tmp_path / "run")) == 2
    assert "has no language-model head, and method vanilla-kd learns from its logits" in capsys.readouterr().err


def test_a_student_that_was_truncated_before_learns(tmp_path: Path, lm: Path, text: dict[str, str]) -> None:
    """The teacher's tokenizer has no padding, as GPT-2's has none; that of what was truncated has."""
    shutil.copytree(lm, tmp_path / "lm")
    tokenizer = byte_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path / "lm")
    assert main(["truncate", str(tmp_path / "lm"), "--layers", "2", "--output", str(tmp_path / "half")]) == 0
    assert AutoTokenizer.from_pretrained(tmp_path / "lm").pad_token is None
    assert AutoTokenizer.from_pretrained(tmp_path / "half").pad_token is not None
    given = {"teacher": tmp_path / "lm", "student": tmp_path / "half", "method": "vanilla-kd", **text, **QUICK}
    assert main(arguments("plan", **given, flops=1e9)) == 0
    assert main(arguments("distill", **given | {"epochs": 1}, output=tmp_path / "run")) == 0


def test_two_forward_passes_are_one(tmp_path: Path, teacher: Path, text: dict[str, str]) -> None:
    given = {"teacher": teacher, "layers": 2, "method": "distil", **text, **QUICK, "epochs": 1}
    for name, tokens in (("whole", 8192), ("parts", 40)):
        assert main(arguments("distill", **given, output=tmp_path / name, batch_tokens=tokens)) == 0
    whole, parts = (records(tmp_path / name, "step") for name in ("whole", "parts"))
    assert len(whole) == len(parts) > 10
    for key in ("loss", "gradient_norm"):
        assert [r[key] for r in whole] == pytest.approx([r[key] for r in parts], rel=2e-4)


def test_pretraining_is_a_bare_loop(tmp_path: Path, lm: Path, text: dict[str, str]) -> None:
    """The same losses as transformers' own logits, torch's cross-entropy and AdamW give on the same batches."""
    run = tmp_path / "run"
    given = QUICK | {"epochs": 1, "learning_rate": 1e-3, "warmup_ratio": 0.0, "weight_decay": 0.0}
    assert main(arguments("pretrain", model=lm, output=run, **text, **given, token_files=tmp_path / "tokens")) == 0
    tokenizer, model = AutoTokenizer.from_pretrained(lm), load_language_model(str(lm)).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    corpus = corpora.load_corpus(tmp_path / "tokens", [text["corpus"]], tokenizer, ReadConfig())
    blocks = all_blocks(corpus, 16)
    plan = epoch_steps(blocks.lengths, 8, 0, 0)
    optimizer, found = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0), []
    for step, rows in enumerate(plan):
        optimizer.param_groups[0]["lr"] = 1e-3 * (len(plan) - step) / len(plan)
        batch = blocks.batch(rows, "cpu", 1.0, 0)
        loss = F.cross_entropy(model(**batch.inputs).logits.flatten(0, 1), batch.labels.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        found.append(loss.item())
    assert [r["loss"] for r in records(run, "step")] == pytest.approx(found, rel=1e-4)


def test_perplexity_from_the_command_line(
    tmp_path: Path, teacher: Path, text: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    run, lambada = tmp_path / "run", write_jsonl(tmp_path / "lambada.jsonl", sentences(3))
    given = {"corpus": [text["corpus"], text["validation_corpus"]], "lambada": lambada, "block_size": 16}
    line = ["evaluate", str(teacher), *arguments("evaluate", **given, output=run)[1:]]
    assert main(line) == 0
    said = read_manifest(run)
    assert "do not overlap, 16 tokens" in said["protocol"] and not (run / "tokens").exists()
    found = said["sets"][text["validation_corpus"]]
    assert found["metrics"]["bits_per_byte"] < 4 and found["tokens_per_second"] > 0
    losses, tokens = (np.load(run / f"2-{part}.npy") for part in ("losses", "tokens"))
    assert losses.sum() / tokens.sum() == pytest.approx(found["metrics"]["loss"])
    assert said["sets"][str(lambada)]["texts"] == 3 == len(np.load(run / "lambada-right.npy"))
    main([*line, "--stride", "4", "--output", str(tmp_path / "slid")])
    slid = read_manifest(tmp_path / "slid")
    assert "4 tokens apart" in slid["protocol"]
    assert slid["sets"][text["corpus"]]["metrics"] != found["metrics"]
    capsys.readouterr()
    assert main(line) == 0 and "up to date" in capsys.readouterr().err
    assert main(["report", str(teacher), str(run), "--output", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "pre-training" in page and "Bits per byte" in page and f"{found['metrics']['bits_per_byte']:.3f}" in page


def test_generated_text_is_the_seeds(lm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["generate", str(lm), "--prompt", "the cat", "--new-tokens", "8", "--temperature", "1"]
    assert main([*line, "--seed", "1"]) == 0 and main([*line, "--seed", "1"]) == 0
    one, again = capsys.readouterr().out.strip().split("\n")[:2]
    assert one == again and one.startswith("the cat")
    assert main(["generate", str(lm), "--prompt", "the cat, the dog", "--new-tokens", "2"]) == 0
    assert capsys.readouterr().out.startswith("the cat, the dog")
    found = demiglace.generate(str(lm), prompt=["the"], temperature=0.0, new_tokens=4)
    assert found.metrics["texts"][0].startswith("the") and str(found) == found.metrics["texts"][0]


PAPER = ("truncate", "pretrain", "wikitext103-pretrain", "evaluate", "distill")


def test_the_recipes_of_paper_1_run(tmp_path: Path, lm: Path, text: dict[str, str]) -> None:
    """All in their order, with a tiny GPT-2 in the place of the real one and no step so large."""
    tiny = {"corpus": [text["corpus"]], "block_size": 16, "epochs": 1, "token_files": str(tmp_path / "tokens")}
    changed = {
        "truncate": {"model": str(lm), "layers": 2},
        "pretrain": {"model": str(tmp_path / "truncate"), **tiny},
        "wikitext103-pretrain": {"model": str(tmp_path / "pretrain"), **tiny, "validation_corpus": [text["corpus"]]},
        "evaluate": {"model": str(tmp_path / "wikitext103-pretrain"), "corpus": [text["corpus"]], "block_size": 16},
        "distill": {"teacher": str(lm), "layers": 2, **tiny},
    }
    made: list[str] = []
    for stage in PAPER:
        recipe = read_yaml(RECIPES / f"paper1-{stage}.yaml")
        assert recipe["output"].startswith("runs/paper1/")
        if recipe.get("model", "").startswith("runs/"):
            assert recipe["model"] in made
        made.append(recipe["output"])
        getattr(demiglace, stage.rpartition("-")[2])(**recipe | changed[stage] | {"output": str(tmp_path / stage)})
    frozen = "transformer.wpe.weight"
    assert torch.equal(weights(tmp_path / "distill")[frozen], load_language_model(str(lm)).state_dict()[frozen])
    assert not torch.equal(weights(tmp_path / "pretrain")[frozen], weights(tmp_path / "distill")[frozen])


def test_a_new_models_shape_and_tokenizer_tell_runs_apart(
    tmp_path: Path, lm: Path, text: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    like, tokenizer = tmp_path / "like", tmp_path / "tokenizer"
    shutil.copytree(lm, like)
    byte_tokenizer(tokenizer)
    line = arguments(
        "pretrain", architecture=like, tokenizer=tokenizer, output=tmp_path / "run", epochs=1, block_size=16, **text
    )
    assert main(line) == 0
    (tokenizer / "manifest.json").write_text("{}")  # what is no part of a tokenizer
    assert main(line) == 0 and "up to date" in capsys.readouterr().err
    config = json.loads((like / "config.json").read_text())
    (like / "config.json").write_text(json.dumps(config | {"n_layer": 1}))
    assert main(line) == 2 and "inputs.config of" in capsys.readouterr().err


BAD = [
    ("pretrain", {"freeze": "wpx"}, "matches no parameter"),
    ("pretrain", {"corpus": None}, "pretrain has nothing to train on; give --corpus FILES"),
    ("pretrain", {"model": None}, "neither was given"),
    ("pretrain", {"architecture": "gpt2"}, "both were given"),
    ("pretrain", {"num_layers": 2}, "--num-layers: only for a new model"),
    ("pretrain", {"model": None, "architecture": "gpt2"}, "has no tokenizer"),
    ("pretrain", {"block_size": 999}, "longer than the 256 tokens"),
    ("pretrain", {"block_size": 200, "corpus": "{short}"}, "fewer than one block"),
    ("pretrain", {"corpus": "{binary}"}, "binary 1"),
    ("pretrain", {"corpus": "{empty}"}, "no document to read"),
    ("pretrain", {"corpus": "missing.txt"}, "does not exist"),
    ("pretrain", {"corpus": "s3://bucket/text.jsonl"}, "is an address; a corpus is read from local files"),
    ("pretrain", {"metric": "accuracy"}, "unknown metric"),
    ("distill", {"data": "rows.csv"}, "--data and --corpus"),
    *(("distill", {"method": name}, "rewrites the rows|learns from the logits of a task's rows") for name in FOR_ROWS),
    ("pretrain", {"model": "{endless}"}, "tokenizer has no end-of-text token.*demiglace tokenizer train"),
    (
        "pretrain",
        {"model": None, "architecture": "roberta", "tokenizer": "{masked}"},
        "numbers positions from the padding",
    ),
    ("distill", {"layers": 9}, "9 layers were requested"),
    ("distill", {"layers": None, "student": "{other}"}, "different vocabularies"),
    ("distill", {"layers": None, "student": "{masked}"}, "different vocabularies|causal and a masked"),
    ("evaluate", {"data": "sst2"}, "give them without --data"),
    ("evaluate", {"stride": 99, "block_size": 16}, "longer than the window"),
    ("evaluate", {"block_size": 999}, "longer than the 256 tokens"),
    ("evaluate", {"model": "{masked}"}, "is a masked language model"),
    ("evaluate", {"lambada": "{empty}"}, "holds no text"),
    ("evaluate", {"lambada": "missing.jsonl"}, "missing.jsonl does not exist"),
    ("evaluate", {"lambada": "{word}"}, "--lambada .*word.jsonl: 'word' has no last word to predict: fewer than two"),
    ("evaluate", {"lambada": "{long}", "block_size": 8}, "--lambada .*ends in a word of 31 tokens; expected 1 to 8"),
]


@pytest.mark.parametrize(("command", "changed", "said"), BAD, ids=[f"{c}-{i}" for i, (c, *_) in enumerate(BAD)])
def test_bad_input(
    tmp_path: Path,
    lm: Path,
    text: dict[str, str],
    capsys: pytest.CaptureFixture[str],
    command: str,
    changed: dict[str, object],
    said: str,
) -> None:
    places = {
        "{short}": write_jsonl(tmp_path / "short.jsonl", ["a few words"]),
        "{binary}": write_jsonl(tmp_path / "binary.jsonl", ["\0\1\2"]),
        "{empty}": write_jsonl(tmp_path / "empty.jsonl", [" "]),
        "{word}": write_jsonl(tmp_path / "word.jsonl", ["word"]),
        "{long}": write_jsonl(tmp_path / "long.jsonl", ["a " + 30 * "x"]),
        "{masked}": tmp_path / "bert",
        "{endless}": tmp_path / "endless",
        "{other}": tmp_path / "other",
    }
    save_lm(tmp_path / "bert", "bert")
    save_lm(tmp_path / "other")
    byte_tokenizer(tmp_path / "other", mask=True)
    save_lm(tmp_path / "endless")
    byte_tokenizer(tmp_path / "endless", end=False)
    usual = {"pretrain": {"model": lm}, "distill": {"teacher": lm, "layers": 2}, "evaluate": {"model": lm}}[command]
    options = {"corpus": text["corpus"], "output": tmp_path / "run"} | usual | changed
    options = {k: places.get(str(v), v) for k, v in options.items()}
    model = options.pop("model", None) if command == "evaluate" else None
    line = arguments(command, **options)
    assert main(line if model is None else [command, str(model), *line[1:]]) == 2
    assert re.search(said, " ".join(capsys.readouterr().err.split()))
    assert not list(tmp_path.glob("run/*.npy")) and not (tmp_path / "run" / "manifest.json").exists()


def test_weights_move(teacher: Path, lm: Path) -> None:
    before = json.loads((teacher / "manifest.json").read_text())["config"]["model"]
    moved = weights(teacher)["transformer.h.0.mlp.c_fc.weight"]
    start = load_language_model(before).state_dict()["transformer.h.0.mlp.c_fc.weight"]
    assert str(lm) == before and not torch.equal(moved, start)


@pytest.fixture(scope="module")
def begins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama whose tokenizer puts <s> before each text, trained on such texts."""
    path = tmp_path_factory.mktemp("begins") / "llama"
    tokenizer = begin_texts(byte_tokenizer())
    model = tiny_lm("llama", len(tokenizer))
    batch = tokenizer(sentences(24, seed=3), return_tensors="pt", padding=True)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(30):
        model(**batch, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    tokenizer.save_pretrained(path)
    save_model(model.eval(), path)
    return path


def test_evaluate_and_generate_begin_texts_as_the_model_does(begins: Path, tmp_path: Path) -> None:
    held = sentences(6, seed=9)
    file = write_jsonl(tmp_path / "held.jsonl", held)
    found = demiglace.evaluate(str(begins), corpus=(str(file),), block_size=200, output=tmp_path / "auto")
    model, tokenizer = load_language_model(str(begins)), AutoTokenizer.from_pretrained(begins)
    sums, tokens = 0.0, 0
    for text in held:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        count = ids.shape[1] - 1
        sums, tokens = sums + model(ids, labels=ids).loss.item() * count, tokens + count
    assert found.metrics[str(file)]["perplexity"] == pytest.approx(np.exp(sums / tokens), rel=1e-4)
    protocol = read_manifest(tmp_path / "auto")["protocol"]
    assert protocol.endswith("each document separately, each window after the beginning token <s>")
    without = demiglace.evaluate(str(begins), corpus=(str(file),), block_size=200, add_bos=False)
    assert without.metrics[str(file)]["perplexity"] > 1.1 * found.metrics[str(file)]["perplexity"]
    (made,) = demiglace.generate(str(begins), prompt=("the",), new_tokens=5, temperature=0).metrics["texts"]
    ids = tokenizer("the", return_tensors="pt")["input_ids"]
    expected = model.generate(ids, max_new_tokens=5, do_sample=False, eos_token_id=tokenizer.eos_token_id)
    assert made == tokenizer.decode(expected[0], skip_special_tokens=True)


def test_blocks_of_training_begin_as_the_model_does(
    begins: Path, tmp_path: Path, text: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"model": begins, **text, **QUICK, "epochs": 1}
    assert main(arguments("pretrain", output=tmp_path / "auto", **options)) == 0
    assert "each block begins with <s>" in capsys.readouterr().err
    assert main(arguments("pretrain", output=tmp_path / "false", add_bos="false", **options)) == 0
    assert "each block begins with" not in capsys.readouterr().err
    first, second = (records(tmp_path / name, "step")[0]["loss"] for name in ("auto", "false"))
    assert first != second
    assert [read_manifest(tmp_path / name)["add_bos"] for name in ("auto", "false")] == [True, False]
    assert main([*arguments("evaluate", data="rows.csv", add_bos="true"), str(begins)]) == 2
