"""`cleaning.html`: what each rule did, with examples. One self-contained file without scripts."""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import jinja2

from demiglace.cleaning import storage
from demiglace.cleaning.statistics import EXCERPT, bin_edges
from demiglace.cleaning.tasks import CleaningSpec, part_files
from demiglace.runs.files import atomic_write

_WIDTH, _HEIGHT = 320, 90
_MEMBERS = 3


def write_page(file: Path, spec: CleaningSpec, result: Mapping[str, Any]) -> None:
    """Write the page of a run; its intermediate files must still exist."""
    rules = [_rule(spec, name, tally) for name, tally in result["rules"].items()]
    page = _template().render(
        style=_resource("demiglace.report", "page.css") + _resource("demiglace.cleaning", "page.css"),
        rules=[r for r in rules if r["name"] != "read"],
        unread=result["rules"].get("read", {}).get("reasons", {}),
        clusters=_clusters(spec, result["clusters"]),
        sources=spec.sources,
        options=spec.rules,
    )
    with atomic_write(file) as draft:
        draft.write_text(page, "utf-8", "replace")


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(_resource("demiglace.cleaning", "page.html.j2"))


def _resource(package: str, name: str) -> str:
    return resources.files(package).joinpath(name).read_text("utf-8")


def _rule(spec: CleaningSpec, name: str, tally: Mapping[str, Any]) -> dict[str, Any]:
    histograms = [{"name": n, **_histogram(h)} for n, h in tally["histograms"].items()]
    examples = {side: [_example(spec, e) for e in tally[side]] for side in ("dropped", "kept")}
    return {**tally, **examples, "name": name, "charts": histograms}


def _example(spec: CleaningSpec, example: Mapping[str, Any]) -> dict[str, Any]:
    return {**example, "location": _location(spec, example["document"])}


def _location(spec: CleaningSpec, document: int) -> str:
    source, number = storage.source_and_index(document)
    return f"{spec.sources[source]}, document {number}"


def _histogram(content: Mapping[str, Any]) -> dict[str, Any]:
    """Lay out a histogram and its bounds in 320 × 90 units. Heights are square roots of counts, to show rare values."""
    edges, counts = bin_edges(content["scale"]), content["counts"]
    most, width = max(1, *counts), _WIDTH / len(counts)
    bars = [
        {"x": i * width, "height": _HEIGHT * math.sqrt(c / most), "width": width, "title": _bin(edges, i, c)}
        for i, c in enumerate(counts)
        if c
    ]
    bounds = [b for b in (content["at_least"], content["at_most"]) if b is not None]
    lines = [{"x": _position(edges, b) * width, "value": f"{b:g}"} for b in bounds]
    return {"bars": bars, "lines": lines, "low": f"{edges[0]:g}", "high": f"{edges[-1]:g}", "of": sum(counts)}


def _position(edges: Sequence[float], value: float) -> float:
    """Return the position of a value in bins. The first and last bins hold the values outside the edges."""
    if value < edges[0]:
        return 1.0
    for i, (low, high) in enumerate(pairwise(edges)):
        if value <= high:
            return 1 + i + (value - low) / (high - low)
    return len(edges) + 1.0


def _bin(edges: Sequence[float], i: int, count: int) -> str:
    if i == 0:
        return f"below {edges[0]:g}: {count:,}"
    if i == len(edges):
        return f"{edges[-1]:g} and above: {count:,}"
    return f"{edges[i - 1]:.3g} to {edges[i]:.3g}: {count:,}"


def _clusters(spec: CleaningSpec, clusters: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
    wanted = {document for cluster in clusters for document in cluster[: 1 + _MEMBERS]}
    texts: dict[int, str] = {}
    for file in part_files(spec):
        if wanted <= texts.keys():
            break
        texts |= storage.read_texts(file, wanted - texts.keys())
    return [
        {
            "size": len(cluster),
            "members": [
                {"location": _location(spec, d), "text": texts.get(d, "")[:EXCERPT]} for d in cluster[: 1 + _MEMBERS]
            ],
        }
        for cluster in clusters
    ]
