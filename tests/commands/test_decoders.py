"""Decoders as classifiers: their last token, padding on either side, pairs kept apart, and the methods on them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from command_kit import QUICK, arguments, lenient, records, weights, write_rows
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

from demiglace.cli import main
from demiglace.data.batching import Batch
from demiglace.data.rows.schema import Split
from demiglace.data.tokenize import TokenizedSplit, tokenize
from demiglace.evaluation.predict import predict
from demiglace.methods.base import TrainingProgress
from demiglace.models.loading import load_classifier, load_tokenizer
from demiglace.models.masked_lm import SelectedPositionLM
from demiglace.models.truncate import truncate_model
from demiglace.runs.directory import read_manifest
from demiglace.training import run as fit
from demiglace.training.adversarial_generator import AdversarialGenerator
from demiglace.training.objective import PerturbedBatch
from factories import DECODERS, decoder_tokenizer, save_decoder, save_tiny, tiny_config
from text_kit import sentences, write_jsonl

TEXTS = ("the good film", "bad", "this is not a great card", "it is red", "no", "the money is lost and the film is bad")
decoders = pytest.mark.parametrize("arch", DECODERS)
kinds = pytest.mark.parametrize("kind", ["classes", "pairs"])


def labelled(path: Path, arch: str, labels: tuple[str, str] = ("negative", "positive")) -> Path:
    """An untrained classifier of rows with these labels."""
    save_decoder(path, arch)
    config = AutoModelForSequenceClassification.from_pretrained(path).config
    config.id2label = dict(enumerate(labels))
    config.save_pretrained(path)
    return path


def examples_of(model: Path, texts: tuple[str, ...] = TEXTS, pairs: tuple[str, ...] | None = None) -> TokenizedSplit:
    split = Split("test", texts, pairs, np.zeros(len(texts), np.int64), [("rows", i) for i in range(len(texts))])
    return tokenize(split, load_tokenizer(model), 128)


@decoders
@pytest.mark.parametrize("paired", [False, True])
def test_padding_on_either_side_changes_nothing(arch: str, paired: bool, tmp_path: Path) -> None:
    pairs = TEXTS[::-1] if paired else None
    logits = []
    for side in ("left", "right"):
        path = save_decoder(tmp_path / side, arch, padding_side=side)
        model = load_classifier(path, None)
        whole = predict(model, examples_of(path, TEXTS, pairs))
        alone = [
            predict(model, examples_of(path, (text,), None if pairs is None else (pairs[i],)))
            for i, text in enumerate(TEXTS)
        ]
        np.testing.assert_allclose(whole, np.concatenate(alone), rtol=1e-4, atol=1e-5)
        logits.append(whole)
    np.testing.assert_allclose(*logits, rtol=1e-4, atol=1e-5)
    assert np.ptp(logits[0], axis=0).min() > 0.01  # the rows differ


@decoders
@pytest.mark.parametrize("side", ["left", "right"])
def test_plain_transformers_on_a_padded_batch_agrees(arch: str, side: str, tmp_path: Path) -> None:
    """The tokenizer that is saved with a model pads as the model needs it."""
    path = save_decoder(tmp_path / "start", arch, padding_side=side)
    given = write_rows(tmp_path / "rows") | QUICK | {"epochs": 1}
    assert main(arguments("finetune", model=path, output=tmp_path / "run", **given)) == 0
    place = tmp_path / "run" / "model"
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(place), AutoTokenizer.from_pretrained(place)
    with torch.inference_mode():
        plain = model(**tokenizer(list(TEXTS), padding=True, return_tensors="pt")).logits
    ours = predict(load_classifier(place, None), examples_of(place))
    np.testing.assert_allclose(plain.numpy(), ours, rtol=1e-4, atol=1e-5)


@decoders
def test_the_class_is_read_off_the_last_token(arch: str, tmp_path: Path) -> None:
    path = save_decoder(tmp_path, arch)
    model, rows = load_classifier(path, None), examples_of(path)
    expected = []
    for first, end in zip(rows.offsets, rows.offsets[1:], strict=False):
        ids = torch.from_numpy(rows.ids[first:end].astype(np.int64))[None]
        with torch.inference_mode():
            expected.append(model.score(model.base_model(input_ids=ids).last_hidden_state[:, -1]))
    np.testing.assert_allclose(predict(model, rows), torch.cat(expected).numpy(), rtol=1e-4, atol=1e-5)


@decoders
def test_the_texts_of_a_pair_are_kept_apart(arch: str, tmp_path: Path) -> None:
    path, plain = save_decoder(tmp_path, arch), decoder_tokenizer()
    end = plain.eos_token_id
    ids = [plain(text)["input_ids"] for text in ("the good", "film")]
    rows = examples_of(path, ("the good", "the"), ("film", "good film"))
    assert rows.ids[: rows.offsets[1]].tolist() == [*ids[0], end, *ids[1]]
    assert rows.ids[: rows.offsets[1]].tolist() != rows.ids[rows.offsets[1] :].tolist()
    assert rows.type_ids is None
    single = examples_of(path, ("the good",))
    assert single.ids.tolist() == ids[0]  # no separator where there is nothing to separate


@decoders
def test_what_parts_a_pair_learns(arch: str, tmp_path: Path) -> None:
    """It is the end of text, which pads as well."""
    path, tokenizer = save_decoder(tmp_path, arch), decoder_tokenizer()
    model = load_classifier(str(path), None)
    end = model.config.pad_token_id
    rows = load_tokenizer(path)(["the good", "the"], ["film", "good film"], padding=True, return_tensors="pt")
    for each in (model, truncate_model(model, (0, 1))):
        each(**rows).logits.square().sum().backward()
        assert end == tokenizer.eos_token_id and each.get_input_embeddings().weight.grad[end].any()


@decoders
def test_long_pairs_are_cut_and_keep_their_separator(arch: str, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(save_decoder(tmp_path, arch))
    split = Split("test", ("red " * 30,), ("blue " * 30,), np.zeros(1, np.int64), [("rows", 1)])
    rows = tokenize(split, tokenizer, 9)
    assert tokenizer.convert_ids_to_tokens(rows.ids.tolist()) == ["red"] * 4 + ["[SEP]"] + ["blue"] * 4


@decoders
@kinds
def test_finetuning_learns(arch: str, kind: str, tmp_path: Path) -> None:
    given = write_rows(tmp_path / "rows", kind) | QUICK | {"epochs": 10, "learning_rate": 4e-3}
    path = save_decoder(tmp_path / "start", arch)
    assert main(arguments("finetune", model=path, output=tmp_path / "run", **given)) == 0
    losses = [step["loss"] for step in records(tmp_path / "run", "step")]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    assert len(tokenizer("red", "blue")["input_ids"]) == 3
    config = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "model").config
    assert config.pad_token_id == tokenizer.pad_token_id


@decoders
@kinds
@pytest.mark.parametrize("method", ["vanilla-kd", "rail-kd-l", "rail-kd-c", "annealing-kd"])
def test_methods_on_decoders(arch: str, kind: str, method: str, tmp_path: Path) -> None:
    given = write_rows(tmp_path / "rows", kind, train=16, held_out=8) | QUICK
    given["method_options"] = lenient(method)
    teacher = labelled(
        tmp_path / "teacher", arch, ("negative", "positive") if kind == "classes" else ("different", "same")
    )
    runs = {cache: tmp_path / cache for cache in (("auto", "off") if kind == "pairs" else ("auto",))}
    for cache, run in runs.items():
        line = arguments("distill", teacher=teacher, output=run, layers=2, method=method, cache=cache, **given)
        assert main([*line, "--cache-dtype", "float32"]) == 0
    losses = [[step["loss"] for step in records(run, "step")] for run in runs.values()]
    assert np.isfinite(losses).all()
    assert losses[0] == pytest.approx(losses[-1], rel=1e-3)  # cached or online, the teacher's signals are the same
    assert read_manifest(tmp_path / "auto")["layers"] == 2
    before = AutoModelForSequenceClassification.from_pretrained(teacher).state_dict()
    assert not torch.equal(weights(tmp_path / "auto")["score.weight"], before["score.weight"])


@decoders
@pytest.mark.parametrize("strategy", ["random", "embeddings"])
def test_students_with_new_layers_can_be_distilled(arch: str, strategy: str, tmp_path: Path) -> None:
    given = write_rows(tmp_path / "rows", train=24, held_out=8) | QUICK | {"epochs": 1, "learning_rate": 1e-12}
    teacher = save_decoder(tmp_path / "teacher", arch)
    assert main(arguments("finetune", model=teacher, output=tmp_path / "trained", **given)) == 0
    line = arguments("distill", teacher=tmp_path / "trained", output=tmp_path / "run", layers=2, strategy=strategy)
    assert main([*line, *arguments("", method="vanilla-kd", **given)[1:]]) == 0
    ours, theirs = weights(tmp_path / "run"), weights(tmp_path / "trained")
    word = next(k for k in theirs if k.endswith(("wte.weight", "embed_tokens.weight")))
    block = next(k for k in theirs if k.endswith(("h.0.mlp.c_fc.weight", "layers.0.mlp.up_proj.weight")))
    assert not torch.allclose(ours[block], theirs[block], atol=1e-3)
    assert torch.allclose(ours[word], theirs[word], atol=1e-6) == (strategy == "embeddings")


# text made by a generator


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_rows(tmp_path_factory.mktemp("rows"), train=24, held_out=8)


def masked_generator(path: Path, mask_token: str | None) -> Path:
    """A small masked language model of the decoders' vocabulary and, where one is given, a mask token."""
    tokenizer = decoder_tokenizer()
    if mask_token:
        tokenizer.add_special_tokens({"mask_token": mask_token})
    config = tiny_config("bert", num_layers=1)
    config.vocab_size, config.pad_token_id = len(tokenizer), tokenizer.eos_token_id
    torch.manual_seed(0)
    AutoModelForMaskedLM.from_config(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def mate(output: Path, teacher: Path, rows: dict[str, str], method: str = "mate-kd", **options: object) -> int:
    quick = {"generator_lr": 1e-3, "generator_steps": 1, "student_steps": 2} | lenient(method) | options
    line = arguments("distill", teacher=teacher, output=output, layers=2, method=method, method_options=quick)
    return main([*line, *arguments("", **rows, **QUICK)[1:]])


@decoders
@pytest.mark.parametrize("method", ["mate-kd", "combined-kd", "rail-mate"])
def test_a_decoder_is_its_own_generator(
    arch: str, method: str, tmp_path: Path, rows: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, original = [], AdversarialGenerator.perturb

    def noted(self: AdversarialGenerator, batch: Batch, now: TrainingProgress) -> PerturbedBatch:
        perturbed = original(self, batch, now)
        seen.append((batch, perturbed.batch))
        return perturbed

    monkeypatch.setattr(AdversarialGenerator, "perturb", noted)
    assert mate(tmp_path / "run", labelled(tmp_path / "teacher", arch), rows, method) == 0
    assert np.isfinite([step["loss"] for step in records(tmp_path / "run", "step")]).all()
    changed = np.concatenate([(a.input_ids != b.input_ids)[a.attention_mask.bool()].numpy() for a, b in seen])
    assert 0.1 < changed.mean() < 0.35
    assert all(torch.equal(a.attention_mask, b.attention_mask) for a, b in seen)


@pytest.mark.parametrize("mask_token", ["[MASK]", "<masked>"])
def test_a_masked_language_model_with_a_mask_token_of_its_own_generates_for_a_decoder(
    mask_token: str, tmp_path: Path, rows: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is a word of the vocabulary, and one beyond it."""
    ids, original = [], SelectedPositionLM.forward

    def noted(self: SelectedPositionLM, inputs: dict[str, torch.Tensor], places: torch.Tensor) -> torch.Tensor:
        ids.append(inputs["input_ids"][places])
        return original(self, inputs, places)

    monkeypatch.setattr(SelectedPositionLM, "forward", noted)
    generator = masked_generator(tmp_path / "generator", mask_token)
    mask = load_tokenizer(generator).mask_token_id
    assert mate(tmp_path / "run", labelled(tmp_path / "teacher", "gpt2"), rows, generator=generator) == 0
    assert ids
    assert all((i == mask).all() for i in ids)


@pytest.mark.parametrize("is_added", [False, True])
def test_a_pretrained_masked_language_model_generates_for_a_decoder(
    is_added: bool, tmp_path: Path, rows: dict[str, str]
) -> None:
    """Decoder and generator are made with one tokenizer, or the mask token is added for the generator alone."""
    text = write_jsonl(tmp_path / "text.jsonl", sentences(30))
    mask = {} if is_added else {"mask_token": "true"}
    line = arguments("tokenizer", corpus=text, vocab_size=270, output=tmp_path / "tokenizer", **mask)
    assert main([*line[:1], "train", *line[1:]]) == 0
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    tokenizer.add_special_tokens({"mask_token": "<|mask|>"})
    tokenizer.save_pretrained(tmp_path / "masked")
    new = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "corpus": text, "block_size": 32, "epochs": 1}
    for arch, vocabulary in (("gpt2", "tokenizer"), ("bert", "masked")):
        given = {"architecture": arch, "tokenizer": tmp_path / vocabulary, "output": tmp_path / arch}
        assert main(arguments("pretrain", **given, **new)) == 0
    trained = arguments("finetune", model=tmp_path / "gpt2", output=tmp_path / "teacher", **rows, **QUICK)
    assert main([*trained, "--max-length", "32"]) == 0
    quick = {"generator": tmp_path / "bert", "generator_lr": 1e-3, "generator_steps": 1, "student_steps": 2}
    quick |= lenient("mate-kd")
    given = {"teacher": tmp_path / "teacher", "layers": 1, "method": "mate-kd", "method_options": quick}
    assert main(arguments("distill", **given, **rows, **QUICK, max_length=32, output=tmp_path / "run")) == 0
    assert np.isfinite([step["loss"] for step in records(tmp_path / "run", "step")]).all()


def test_a_causal_language_model_generates_for_a_decoder(tmp_path: Path, rows: dict[str, str]) -> None:
    generator = save_decoder(tmp_path / "generator", "gpt2", num_layers=1, num_labels=0, seed=1)
    assert mate(tmp_path / "run", labelled(tmp_path / "teacher", "llama"), rows, generator=generator) == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: masked_generator(path, None), "has no mask token; take a generator that has one, such as BERT"),
        (lambda path: save_tiny(path, "gpt2"), "teacher and generator have different vocabularies"),
    ],
)
def test_generators_that_do_not_suit_a_decoder(
    make: Callable[[Path], Path], message: str, tmp_path: Path, rows: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    generator = make(tmp_path / "generator")
    assert mate(tmp_path / "run", labelled(tmp_path / "teacher", "gpt2"), rows, generator=generator) == 2
    assert message in capsys.readouterr().err


def test_a_generator_for_shorter_rows_is_refused(
    tmp_path: Path, rows: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config("gpt2", num_layers=1)
    config.n_positions, config.pad_token_id = 4, None
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "generator")
    decoder_tokenizer(tmp_path / "generator")
    generator = tmp_path / "generator"
    assert mate(tmp_path / "run", labelled(tmp_path / "teacher", "gpt2"), rows, generator=generator) == 2
    assert "the model takes 4 at most" in capsys.readouterr().err


def test_a_killed_run_with_a_decoders_generator_ends_as_a_whole_one(
    tmp_path: Path, rows: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = labelled(tmp_path / "teacher", "gpt2")
    assert mate(tmp_path / "whole", teacher, rows) == 0

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fit.Loop, "_end_epoch", interrupted)
        assert mate(tmp_path / "cut", teacher, rows | {"checkpoint_seconds": "0"}) == 130
    assert mate(tmp_path / "cut", teacher, rows) == 0
    ours, theirs = weights(tmp_path / "cut"), weights(tmp_path / "whole")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
