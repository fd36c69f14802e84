"""Linear maps that bring the two models' hidden states to a common size. They are trained, and never in the student.

Two unrelated random maps make identical states look orthogonal, and a few hundred steps align the maps without
aligning what distinguishes one row from another. So the maps start `matched`: related states are near from the first
step on (`benchmarks/results/rail-starts`).
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
_RIDGE = 1e-3  # of the mean eigenvalue: a few rows must not decide directions in which they hardly differ


@dataclass(frozen=True)
class Projection:
    """How hidden states [B, m, d] of two models become comparable.

    kind: `per-layer` has one map for each layer of each model, `shared` one map a model, `concatenated` one map a model
    for its layers side by side ([B, m·d] → [B, 1, u]); `none` compares the states themselves and needs equal widths;
    `auto` is `none` where widths are equal and `per-layer` where they are not.

    start: `matched` gives both models the same random orthogonal map where widths are equal (the identity with
    teacher=False); where they are not, the student's map is fitted by ridge regression to the teacher's projected
    states on the first training rows. `random` draws every map by itself.
    """

    kind: Kind = "none"
    size: int = option("u, the size that hidden states are projected to", 128, at_least=1)
    trained: TrainableSide = option("whose maps are trained; the others keep their start", "both")
    teacher: bool = option("false: map the student to the teacher's width and leave the teacher's states", True)
    start: Start = option("matched: related states are near at the start; random: unrelated maps", "matched")

    def resolved(self, student_width: int, teacher_width: int) -> "Projection":
        """Return the projection with `auto` replaced by the kind that suits these widths."""
        if self.kind != "auto":
            return self
        return replace(self, kind="none" if student_width == teacher_width else "per-layer")

    def check(self, student_width: int, teacher_width: int) -> None:
        """Raise `ModelError` where states of these widths cannot be compared this way."""
        if self.kind == "none" and student_width != teacher_width:
            raise ModelError(
                f"hidden sizes differ ({student_width} in the student, {teacher_width} in the teacher) and nothing "
                "projects them; take a method with a projection, such as rail-kd-l with projection=per-layer."
            )

    def build(self, pairs: int, candidates: int, student_width: int, teacher_width: int) -> "Projections":
        """Return the maps for `pairs` student layers and as many out of `candidates` teacher layers."""
        choice = self.resolved(student_width, teacher_width)
        return Projections(choice, pairs, candidates, student_width, teacher_width)


class Projections(nn.Module):
    """The maps of both models: the student's by student layer, the teacher's by teacher layer.

    Maps of concatenated layers belong to places in the concatenation, as in the paper's equation.
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
        """Set all maps to one: layers that mean the same then look the same, whichever of them meet."""
        start = nn.init.orthogonal_(torch.empty(width, size)) if projects_teacher else torch.eye(width)
        for maps in (self.student, self.teacher):
            if isinstance(maps, LinearMaps) and maps.weight.shape[1] == width:
                maps.weight.copy_(start.expand_as(maps.weight))

    def forward(self, student: Tensor, teacher: Tensor, chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Map [B, m, d_S] and [B, k, d_T] to [B, m, u] and [B, k, u]; `concatenated` to [B, 1, u] each.

        chosen: which of the candidate teacher layers the k are, from 0. Between m and d there may be an axis of tokens,
        but not with `concatenated`.
        """
        student, teacher = self._joined(student), self._joined(teacher)
        own = self.student(student, range(student.shape[1])) if isinstance(self.student, LinearMaps) else student
        return own, self._of_teacher(teacher, chosen)

    @torch.no_grad()
    def observe(self, student: Tensor, teacher: Tensor, chosen: Sequence[int]) -> None:
        """Add states of some rows to those that `fit` uses; shapes as in `forward`, layers in pairs."""
        assert isinstance(self.student, LinearMaps)
        self.student.observe(self._joined(student), self._of_teacher(self._joined(teacher), chosen))

    def fit(self, centered: bool = False) -> None:
        """Fit the student's maps to the states that were observed; centered: to these less their means."""
        assert isinstance(self.student, LinearMaps)
        self.student.fit(centered)

    def _joined(self, states: Tensor) -> Tensor:
        return states.flatten(1).unsqueeze(1) if self._concatenated else states

    def _of_teacher(self, states: Tensor, chosen: Sequence[int]) -> Tensor:
        return self.teacher(states, chosen) if isinstance(self.teacher, LinearMaps) else states


class LinearMaps(nn.Module):
    """`count` linear maps side by side, one for each layer, or a single one for all layers."""

    def __init__(self, count: int, width: int, size: int, trained: bool):
        super().__init__()
        bound = width**-0.5
        weight = torch.empty(count, width, size).uniform_(-bound, bound)
        self.weight = nn.Parameter(weight, requires_grad=trained)
        self._sums: tuple[Tensor, ...] | None = None  # of observed rows: XᵀX, XᵀY, Xᵀ1, Yᵀ1, their number

    def forward(self, hidden: Tensor, layers: Sequence[int]) -> Tensor:
        """Map [B, m, …, d] to [B, m, …, u]; layers: which map each of the m takes."""
        weight = self.weight.expand(hidden.shape[1], -1, -1) if len(self.weight) == 1 else self.weight[list(layers)]
        return torch.einsum("bm...d,mdu->bm...u", hidden, weight)

    @torch.no_grad()
    def observe(self, states: Tensor, targets: Tensor) -> None:
        """Add inputs [B, m, …, d] and the outputs [B, m, …, u] that they should have."""
        x, y = (t.transpose(0, 1).double() for t in (states, targets))
        if len(self.weight) == 1:
            x, y = x.unsqueeze(0), y.unsqueeze(0)
        x, y = x.flatten(1, -2), y.flatten(1, -2)
        sums = x.mT @ x, x.mT @ y, x.sum(1), y.sum(1), x.new_tensor(x.shape[1])
        self._sums = sums if self._sums is None else tuple(a + b for a, b in zip(self._sums, sums, strict=True))

    @torch.no_grad()
    def fit(self, centered: bool = False) -> None:
        """Set the maps to the ridge regression of the observed outputs on the observed inputs, or of both centered."""
        assert self._sums is not None
        gram, cross, x, y, rows = self._sums
        if centered:
            gram = gram - x[:, :, None] * x[:, None] / rows
            cross = cross - x[:, :, None] * y[:, None] / rows
        ridge = _RIDGE * gram.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-12)
        eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
        self.weight.copy_(torch.linalg.solve(gram + ridge[:, None, None] * eye, cross))
        self._sums = None
