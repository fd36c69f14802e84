"""Linear maps that bring the two models' hidden states to a common size. They live in the run, never in the student."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from demiglace.config import option
from demiglace.errors import ModelError

Kind = Literal["per-layer", "shared", "concatenated", "none"]
Trained = Literal["both", "student", "neither"]


@dataclass(frozen=True)
class Projection:
    """How hidden states [B, m, d] become comparable.

    kind: one map for each layer, one `shared` by all, one for the `concatenated` layers ([B, m·d] → [B, 1, u]), or
    `none`, which needs equal widths. size: u. trained: whose maps learn; the others keep their random start.
    teacher: false maps the student to the teacher's own width instead of both to u.
    """

    kind: Kind = "none"
    size: int = option("u, the size that hidden states are projected to", 128, at_least=1)
    trained: Trained = "both"
    teacher: bool = True

    def check(self, student_width: int, teacher_width: int) -> None:
        """Raise `ModelError` where states of these widths cannot be compared this way."""
        if self.kind == "none" and student_width != teacher_width:
            raise ModelError(
                f"hidden sizes differ ({student_width} in the student, {teacher_width} in the teacher) and nothing "
                "projects them; take a method with a projection, such as rail-kd-l with projection=per-layer."
            )

    def build(self, count: int, student_width: int, teacher_width: int) -> "Projections":
        """The maps for `count` pairs of layers."""
        return Projections(self, count, student_width, teacher_width)


class Projections(nn.Module):
    """The maps of both models."""

    def __init__(self, choice: Projection, count: int, student_width: int, teacher_width: int):
        super().__init__()
        self._concatenated = choice.kind == "concatenated"
        self.student: nn.Module = nn.Identity()
        self.teacher: nn.Module = nn.Identity()
        if choice.kind == "none":
            return
        factor = count if self._concatenated else 1
        size = choice.size if choice.teacher else teacher_width * factor
        maps = count if choice.kind == "per-layer" else 1
        self.student = _Maps(maps, student_width * factor, size, trained=choice.trained != "neither")
        if choice.teacher:
            self.teacher = _Maps(maps, teacher_width * factor, size, trained=choice.trained == "both")

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """[B, m, d_S] and [B, k, d_T] to [B, m, u] and [B, k, u]; with `concatenated` to [B, 1, u] each.

        Between m and d there may be an axis of tokens, but not with `concatenated`.
        """
        if self._concatenated:
            student, teacher = student.flatten(1).unsqueeze(1), teacher.flatten(1).unsqueeze(1)
        return self.student(student), self.teacher(teacher)


class _Maps(nn.Module):
    """`count` linear maps side by side, the i-th for the i-th layer; one map serves every layer."""

    def __init__(self, count: int, width: int, size: int, trained: bool):
        super().__init__()
        bound = width**-0.5
        weight = torch.empty(count, width, size).uniform_(-bound, bound)
        self.weight = nn.Parameter(weight, requires_grad=trained)

    def forward(self, hidden: Tensor) -> Tensor:
        return torch.einsum("bm...d,mdu->bm...u", hidden, self.weight.expand(hidden.shape[1], -1, -1))
