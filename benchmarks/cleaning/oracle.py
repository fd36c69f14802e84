"""Our rules against datatrove's: equal decisions for each document? `make bench-clean` runs it.

Differences are listed with what both sides say, at most five a rule; benchmarks/README.md explains them.
"""

import sys

from corpora import SETS, filters, texts, write
from datatrove.data import Document

from demiglace.cleaning.pipeline import batches
from demiglace.cleaning.registry import RULES


def main() -> int:
    documents = [text for name in SETS for text in texts(name)]
    found = {name: compare(name, filter_, documents) for name, filter_ in filters().items()}
    for name, row in found.items():
        print(f"{name:20} {row['equal']:6,} of {row['documents']:,} decisions equal, {row['ours kept']:,} kept by us")
    write("cleaning_oracle", {"sets": SETS, "rules": found})
    return 0


def compare(name, filter_, documents) -> dict:
    rule, differences, equal, kept = RULES[name](), [], 0, 0
    for piece in batches(documents):
        outcome = rule(documents[piece])
        for text, new, keep in zip(documents[piece], outcome.texts, outcome.keep, strict=True):
            document = Document(text=text, id="")
            said = filter_.filter(document)
            theirs = said is True
            same = theirs == bool(keep) and (not keep or document.text == new)
            equal, kept = equal + same, kept + bool(keep)
            if not same and len(differences) < 5:
                differences.append({"theirs": str(said), "ours kept": bool(keep), "text": text[:200]})
    return {"documents": len(documents), "equal": equal, "ours kept": kept, "differences": differences}


if __name__ == "__main__":
    sys.exit(main())
