"""How well rules find what belongs to a page and what was planted: precision and recall. `make bench-clean`.

noisy_web: words (as a bag, with how often) of what is left of the visible text against those of the page's gold text,
before and after rules that take lines out. noisy_web_html: the same for trafilatura's extraction of the HTML.
near-duplicates: real texts, each with a copy in which a share of the words is replaced, against their exact Jaccard
similarity and the probability that theory gives for it.
"""

from collections import Counter
from statistics import mean

import numpy as np
from corpora import rows, write

from demiglace.cleaning.rules.c4 import C4
from demiglace.cleaning.rules.minhash_dedup import NearDuplicates
from demiglace.cleaning.text_arrays import Texts
from demiglace.data.text.readers import _extracted


def main() -> None:
    results = {"noisy_web": visible_text(), "noisy_web_html": extraction(), "near-duplicates": planted()}
    for name, found in results.items():
        for side, scores in found.items():
            print(f"{name:16} {side:24} {scores}")
    write("cleaning_quality", results)


def visible_text() -> dict:
    pages = [row for row in rows("noisy_web") if row.get("gold_text")]
    segments = [row for row in rows("noisy_web") if row.get("must_keep")]
    rule = C4(min_sentences=0)
    sides = {"as it is": [r["text"] for r in pages], "c4's line rules": [rule.page(r["text"]).text for r in pages]}
    found = {side: scores(texts, [r["gold_text"] for r in pages]) for side, texts in sides.items()}
    kept = {"as it is": [r["text"] for r in segments], "c4's line rules": [rule.page(r["text"]).text for r in segments]}
    for side, texts in kept.items():
        found[f"segments, {side}"] = segment_scores(texts, segments)
    return found


def extraction() -> dict:
    pages = [row for row in rows("noisy_web_html") if row.get("gold_text")]
    texts = [_extracted(row["html"].encode()) or "" for row in pages]
    return {"trafilatura": scores(texts, [row["gold_text"] for row in pages])} if pages else {}


def planted(count: int = 300, words: int = 200) -> dict:
    """By the share of words that were replaced: similarity, and what is found; and the curve of theory."""
    draw, rule, found = np.random.default_rng(0), NearDuplicates(), {}
    real = [t.split()[:words] for t in (row["text"] for row in rows("c4_sample"))]
    real = [t for t in real if len(t) == words][:count]
    vocabulary = sorted({w for t in real for w in t})
    for share in (0.05, 0.1, 0.15, 0.2, 0.3, 0.4):
        copies = [[draw.choice(vocabulary) if draw.random() < share else w for w in t] for t in real]
        pairs = [(" ".join(a), " ".join(b)) for a, b in zip(real, copies, strict=True)]
        similar = [_jaccard(*pair) for pair in pairs]
        links = _links(rule, [side for pair in pairs for side in pair])
        right = {(2 * i, 2 * i + 1) for i in range(len(pairs))}
        found[f"{share:.0%} replaced"] = {
            "pairs": len(pairs),
            "similarity": round(mean(similar), 4),
            "recall": round(len(links & right) / len(right), 4),
            "recall by theory": round(mean(map(rule.probability, similar)), 4),
            "precision": round(len(links & right) / len(links), 4) if links else None,
        }
    curve = {f"{j / 20:.2f}": round(rule.probability(j / 20), 4) for j in range(21)}
    return found | {"probability by similarity": curve}


def _jaccard(one: str, other: str) -> float:
    a, b = (set(zip(*(words[k:] for k in range(5)), strict=False)) for words in map(_spoken, (one, other)))
    return len(a & b) / len(a | b)


def _spoken(text: str) -> list[int]:
    return Texts([text]).shingle_words[0].tolist()


def _links(rule: NearDuplicates, documents: list[str]) -> set[tuple[int, int]]:
    """The pairs (first, other) that agree in a band."""
    numbers = np.arange(len(documents), dtype=np.uint64)
    settled = rule.settle(rule.keys(Texts(documents), numbers, [""] * len(documents)))
    return set(zip(settled.key.tolist(), settled.document.tolist(), strict=True))


def scores(texts: list[str], gold: list[str]) -> dict:
    """Means over pages."""
    each = [_overlap(_words(t), _words(g)) for t, g in zip(texts, gold, strict=True)]
    names = ("precision", "recall", "f1")
    return {"pages": len(each)} | {n: round(mean(s[i] for s in each), 4) for i, n in enumerate(names)}


def segment_scores(texts: list[str], pages: list[dict]) -> dict:
    """Of segments that must stay and that must go, which did."""
    stay = [(s in t) for t, p in zip(texts, pages, strict=True) for s in p["must_keep"] if s in p["text"]]
    go = [(s in t) for t, p in zip(texts, pages, strict=True) for s in p.get("boilerplate") or () if s in p["text"]]
    kept = sum(stay) + sum(go)
    precision, recall = sum(stay) / kept if kept else 0.0, sum(stay) / len(stay)
    f1 = 2 * precision * recall / (precision + recall)
    return {"pages": len(pages), "precision": round(precision, 4), "recall": round(recall, 4), "f1": round(f1, 4)}


def _words(text: str) -> Counter[int]:
    return Counter(Texts([text]).shingle_words[0].tolist())


def _overlap(found: Counter[int], gold: Counter[int]) -> tuple[float, float, float]:
    common = sum((found & gold).values())
    precision, recall = common / max(1, sum(found.values())), common / max(1, sum(gold.values()))
    return precision, recall, 2 * precision * recall / max(1e-9, precision + recall)


if __name__ == "__main__":
    main()
