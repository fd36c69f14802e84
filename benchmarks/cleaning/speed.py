"""Cleaning against datatrove: MB of text for each CPU-second, rule set by rule set, and growth. `make bench-clean`.

One core: both sides run in one process. datatrove's side is its filters, ftfy and MinHash signature over documents in
memory, without its readers and writers, on a part of the text, since it takes long; ours reads files and writes shards,
ledger and page. The sides take turns.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import zstandard
from corpora import SETS, filters, rows, write

MB = 1e6


def enlarged(megabytes: float, seed: int = 0) -> list[str]:
    """Return real documents, and more made of them: lines sampled again, one word in ten from another document."""
    draw = np.random.default_rng(seed)
    real = [row["text"] for name in SETS for row in rows(name)]
    size, made = sum(len(t.encode()) for t in real), list(real)
    while size < megabytes * MB:
        one, other = (real[i] for i in draw.integers(0, len(real), 2))
        lines, words = one.split("\n"), other.split() or ["word"]
        picked = [lines[i] for i in np.sort(draw.integers(0, len(lines), len(lines)))]
        text = "\n".join(_varied(line, words, draw) for line in picked)
        size += len(text.encode())
        made.append(text)
    return made


def _varied(line: str, words: Sequence[str], draw: np.random.Generator) -> str:
    pieces = line.split(" ")
    for i in np.flatnonzero(draw.random(len(pieces)) < 0.1):
        pieces[i] = words[int(draw.integers(len(words)))]
    return " ".join(pieces)


# in between, since what is started from a process with much memory counts that as its own until it has begun
_MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1e3)
"""


def in_child(call: Sequence[str]) -> dict[str, float]:
    """CPU-seconds, wall and peak memory (MB, of the largest one) of a process and those it starts."""
    start = time.perf_counter()
    whole = [sys.executable, "-c", _MEASURE, sys.executable, *call]
    cpu, peak = subprocess.run(whole, check=True, stdout=subprocess.PIPE).stdout.split()
    return {"cpu": float(cpu), "wall": time.perf_counter() - start, "peak_mb": float(peak)}


def ours(source: Path, rules: str, home: Path, workers: int = 1) -> dict[str, float]:
    output = home / f"run-{time.monotonic_ns()}"
    call = ["-m", "demiglace", "clean", str(source), "-o", str(output), "--rules", rules, "--workers", str(workers)]
    return in_child(call)


def datatrove(documents: Sequence[str]) -> float:
    """CPU-seconds of datatrove's side of the `web` rules but for language identification."""
    from datatrove.data import Document
    from datatrove.pipeline.dedup import MinhashDedupSignature, minhash
    from datatrove.pipeline.formatters import FTFYFormatter, PIIFormatter

    chain = list(filters().values())
    repair, mask = FTFYFormatter(), PIIFormatter()
    with tempfile.TemporaryDirectory() as folder:
        minhash.load_word_tokenizer = lambda language: _Words()
        signature = MinhashDedupSignature(folder)
        start = time.process_time()
        for text in documents:
            document = Document(text=repair.format(text), id="")
            if all(f.filter(document) is True for f in chain):
                shingles = signature.get_shingles(document.text)
                if shingles.size:
                    signature.get_signature(shingles)
                document.text = mask.format(document.text)
        return time.process_time() - start


class _Words:
    def word_tokenize(self, text: str) -> list[str]:
        return text.split()


def plain_paper(documents: Sequence[str], finds: Callable[[str], bool]) -> float:
    """CPU-seconds of the published rules written down line by line, with a parser on every line."""
    from demiglace.cleaning.rules.short_study import line_key

    seen: set = set()
    start = time.process_time()
    for text in documents:
        for line in text.split("\n"):
            key = line_key(line)
            if key not in seen:
                finds(line)
            seen.add(key)
    return time.process_time() - start


def finds_with_soup(line: str) -> bool:
    """Return whether the published program drops the line as HTML."""
    import warnings

    from bs4 import BeautifulSoup, ParserRejectedMarkup

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return bool(BeautifulSoup(line.rstrip(), "html.parser").find())
        except ParserRejectedMarkup:
            return True


def size_of(documents: Sequence[str]) -> float:
    return sum(len(t.encode()) for t in documents) / MB


def save(documents: Sequence[str], file: Path) -> Path:
    with file.open("wb") as raw, zstandard.ZstdCompressor().stream_writer(raw) as packed:
        for text in documents:
            packed.write(json.dumps({"text": text}).encode() + b"\n")
    return file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=float, default=300)
    parser.add_argument("--sample-mb", type=float, default=12, help="of datatrove's side and of the line-by-line form")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--growth", type=float, nargs="*", default=[30, 300, 3000])
    args = parser.parse_args()
    results: dict = {"config": vars(args)}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        documents = enlarged(args.mb)
        source, size = save(documents, home / "all.jsonl.zst"), size_of(documents)
        draw = np.random.default_rng(1).permutation(len(documents))
        sample = [documents[i] for i in draw[: max(1, int(len(documents) * args.sample_mb / size))]]
        no_language = home / "no-language.yaml"
        rules = ["repair", "boilerplate", "gopher-quality", "gopher-repetition", "fineweb-quality", "c4"]
        no_language.write_text(
            "rules:\n" + "".join(f"- {r}\n" for r in [*rules, "exact-duplicates", "near-duplicates", "mask"])
        )
        results["sides"] = rounds(args.rounds, source, size, sample, home, str(no_language))
        results["two workers"] = ours(source, "web", home, workers=2) | {"mb": size}
        results["growth"] = []
        for megabytes in args.growth:
            more = enlarged(megabytes)
            row = ours(save(more, home / "growth.jsonl.zst"), "web", home) | {"mb": size_of(more)}
            print(
                f"{row['mb']:8.0f} MB: {row['mb'] / row['cpu']:.1f} MB/CPU-s, peak {row['peak_mb']:.0f} MB", flush=True
            )
            results["growth"].append(row)
            write("cleaning_speed", results)  # the last one takes long


def rounds(count: int, source: Path, size: float, sample: Sequence[str], home: Path, no_language: str) -> dict:
    """MB per CPU-second of each side, by round, and the medians of the ratios of one round."""
    from demiglace.cleaning.rules.short_study import finds_tag

    part = size_of(sample)
    found: dict[str, list[float]] = {}
    for _ in range(count):
        sides = {
            "web": size / ours(source, "web", home)["cpu"],
            "web without language": size / ours(source, no_language, home)["cpu"],
            "datatrove": part / datatrove(sample),
            "paper": size / ours(source, "paper", home)["cpu"],
            "line by line, html.parser": part / plain_paper(sample, finds_tag),
            "line by line, BeautifulSoup": part / plain_paper(sample, finds_with_soup),
        }
        for name, speed in sides.items():
            found.setdefault(name, []).append(round(speed, 3))
        print({k: round(v, 2) for k, v in sides.items()}, flush=True)
    ratios = {
        "web without language / datatrove": _ratio(found, "web without language", "datatrove"),
        "paper / html.parser on every line": _ratio(found, "paper", "line by line, html.parser"),
        "paper / BeautifulSoup on every line": _ratio(found, "paper", "line by line, BeautifulSoup"),
    }
    return {"mb_per_cpu_second": found, "median_ratios": ratios}


def _ratio(found: dict[str, list[float]], one: str, other: str) -> float:
    return round(median(a / b for a, b in zip(found[one], found[other], strict=True)), 2)


if __name__ == "__main__":
    main()
