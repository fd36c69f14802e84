"""How well rules find what belongs to a page: precision, recall and F1 on pages with gold text. `make bench-clean`.

noisy_web: words (as a bag, with how often) of what is left of the visible text against those of the page's gold text,
before and after rules that take lines out. noisy_web_html: the same for trafilatura's extraction of the HTML.
"""

from collections import Counter
from statistics import mean

from material import rows, write

from demiglace.cleaning.c4 import C4
from demiglace.cleaning.texts import Texts
from demiglace.data.documents import _extracted


def main() -> None:
    results = {"noisy_web": visible_text(), "noisy_web_html": extraction()}
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
