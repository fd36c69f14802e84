"""Linear projections of both models' hidden states to a common width. They are trained, and not part of the student.

Two independent random maps make identical states look orthogonal. A few hundred steps then align the maps, but not the
differences between rows. So the maps start `matched`: related states are close from the first step on
(`benchmarks/results/rail-starts`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from demiglace.config.options import option
from demiglace.errors import ModelError

Kind = Literal["auto", "per-layer", "shared", "concatenated", "none"]
TrainableSide = Literal["both", "student", "neither"]
Start = Literal["matched", "random"]
_RIDGE = 1e-3  # relative to the mean eigenvalue: directions in which a few rows hardly differ must not be fitted


@dataclass(frozen=True)
class Projection:
    """Options that make hidden states [B, m, d] of two models comparable."""

    # "per-layer": one map for each layer of each model; "shared": one map for each model; "concatenated": one map for
    # each model, for its concatenated layers ([B, m·d] → [B, 1, u]); "none": no maps, for equal widths only; "auto":
    # "none" for equal widths, else "per-layer"
    kind: Kind = "none"
    size: int = option("u, width that hidden states are projected to", 128, at_least=1)
    trained: TrainableSide = option("model whose maps are trained; the others keep their initial values", "both")
    teacher: bool = option("project both models to `size`; false: project the student to the teacher's width", True)
    # "matched": for equal widths both models get the same random orthogonal map (the identity with teacher=False); else
    # the student's map is fitted by ridge regression to the teacher's projected states on the first training rows
    start: Start = option(
        "initial maps; matched: related states start close together; random: independent maps", "matched"
    )

    def resolved(self, student_width: int, teacher_width: int) -> "Projection":
        """Return the projection with `auto` replaced by the kind for these widths."""
        if self.kind != "auto":
            return self
        return replace(self, kind="none" if student_width == teacher_width else "per-layer")

    def check(self, student_width: int, teacher_width: int) -> None:
        """Raise `ModelError` if states of these widths cannot be compared with this kind."""
        if self.kind == "none" and student_width != teacher_width:
            raise ModelError(
                f"hidden sizes differ ({student_width} in the student, {teacher_width} in the teacher) and nothing "
                "projects them; use a method with a projection, such as rail-kd-l with projection=per-layer."
            )

    def build(self, pairs: int, candidates: int, student_width: int, teacher_width: int) -> "Projections":
        """Return the maps for `pairs` student layers and as many of `candidates` teacher layers."""
        choice = self.resolved(student_width, teacher_width)
        return Projections(choice, pairs, candidates, student_width, teacher_width)


class Projections(nn.Module):
    """The maps of both models, one for each layer or one for all layers.

    The parts of a map of concatenated layers belong to positions in the concatenation, as in the equation of RAIL-KD.
    """

    def __init__(self, choice: Projection, pairs: int, candidates: int, student_width: int, teacher_width: int):
        super().__init__()
        self._concatenated = choice.kind == "concatenated"
        self.student: nn.Module = nn.Identity()
        self.teacher: nn.Module = nn.Identity()
        self.needs_fit = False
        if choice.kind == "none":
            return
        factor = pairs if self._concatenated else 1
        widths = student_width * factor, teacher_width * factor
        size = choice.size if choice.teacher else widths[1]
        per_layer = choice.kind == "per-layer"
        self.student = LinearMaps(pairs if per_layer else 1, widths[0], size, trained=choice.trained != "neither")
        if choice.teacher:
            count = candidates if per_layer else 1
            self.teacher = LinearMaps(count, widths[1], size, trained=choice.trained == "both")
        if choice.start == "matched":
            self.needs_fit = student_width != teacher_width
            self._match(widths[1], size, choice.teacher)

    @torch.no_grad()
    def _match(self, width: int, size: int, projects_teacher: bool) -> None:
        """Set all maps to the same matrix: equal states then stay equal, whichever layers are matched."""
        start = nn.init.orthogonal_(torch.empty(width, size)) if projects_teacher else torch.eye(width)
        for maps in (self.student, self.teacher):
            if isinstance(maps, LinearMaps) and maps.weight.shape[1] == width:
                maps.weight.copy_(start.expand_as(maps.weight))

    def forward(self, student: Tensor, teacher: Tensor, chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Map [B, m, d_S] and [B, k, d_T] to [B, m, u] and [B, k, u]; `concatenated` to [B, 1, u] each.

        chosen: indices of the k layers among the candidate teacher layers, from 0. There may be an axis of tokens
        between m and d, but not with `concatenated`.
        """
        student, teacher = self._concatenate(student), self._concatenate(teacher)
        projected = self.student(student, range(student.shape[1])) if isinstance(self.student, LinearMaps) else student
        return projected, self._project_teacher(teacher, chosen)

    @torch.no_grad()
    def observe(self, student: Tensor, teacher: Tensor, chosen: Sequence[int]) -> None:
        """Add the states of some rows to the statistics of `fit`; shapes as in `forward`, layers in pairs."""
        assert isinstance(self.student, LinearMaps)
        self.student.observe(self._concatenate(student), self._project_teacher(self._concatenate(teacher), chosen))

    def fit(self, centered: bool = False) -> None:
        """Fit the student's maps to the observed states; centered: to these minus their means."""
        assert isinstance(self.student, LinearMaps)
        self.student.fit(centered)

    def _concatenate(self, states: Tensor) -> Tensor:
        return states.flatten(1).unsqueeze(1) if self._concatenated else states

    def _project_teacher(self, states: Tensor, chosen: Sequence[int]) -> Tensor:
        return self.teacher(states, chosen) if isinstance(self.teacher, LinearMaps) else states


class LinearMaps(nn.Module):
    """`count` linear maps: one for each layer, or a single one for all layers."""

    def __init__(self, count: int, width: int, size: int, trained: bool):
        super().__init__()
        bound = width**-0.5
        weight = torch.empty(count, width, size).uniform_(-bound, bound)
        self.weight = nn.Parameter(weight, requires_grad=trained)
        self._sums: tuple[Tensor, ...] | None = None  # XᵀX, XᵀY, Xᵀ1, Yᵀ1 and the number of observed rows

    def forward(self, hidden: Tensor, layers: Sequence[int]) -> Tensor:
        """Map [B, m, …, d] to [B, m, …, u]; layers: index of the map of each of the m layers."""
        weight = self.weight.expand(hidden.shape[1], -1, -1) if len(self.weight) == 1 else self.weight[list(layers)]
        return torch.einsum("bm...d,mdu->bm...u", hidden, weight)

    @torch.no_grad()
    def observe(self, states: Tensor, targets: Tensor) -> None:
        """Add inputs [B, m, …, d] and their target outputs [B, m, …, u] to the statistics of `fit`."""
        x, y = (t.transpose(0, 1).double() for t in (states, targets))
        if len(self.weight) == 1:
            x, y = x.unsqueeze(0), y.unsqueeze(0)
        x, y = x.flatten(1, -2), y.flatten(1, -2)
        sums = x.mT @ x, x.mT @ y, x.sum(1), y.sum(1), x.new_tensor(x.shape[1])
        self._sums = sums if self._sums is None else tuple(a + b for a, b in zip(self._sums, sums, strict=True))

    @torch.no_grad()
    def fit(self, centered: bool = False) -> None:
        """Set the maps to the ridge regression of observed outputs on inputs; centered: minus their means."""
        assert self._sums is not None
        gram, cross, x, y, rows = self._sums
        if centered:
            gram = gram - x[:, :, None] * x[:, None] / rows
            cross = cross - x[:, :, None] * y[:, None] / rows
        ridge = _RIDGE * gram.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-12)
        eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
        self.weight.copy_(torch.linalg.solve(gram + ridge[:, None, None] * eye, cross))
        self._sums = None
