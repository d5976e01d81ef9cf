"""Muon for the matrices of hidden layers, beside the AdamW that megatron-core has made for all else.

The momentum of each Hugging Face matrix is made orthogonal as a whole, whichever ranks hold parts of it and however
they are fused, so that no layout changes what is computed. Imported only after compat.prepare().
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from ...storage.checkpoints.slots import MOMENT
from ...storage.checkpoints.tensor_names import Piece

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """A parameter of this rank that is Muon's."""

    main: torch.Tensor
    """float32, what the optimizer updates."""
    shape: tuple[int, int]
    """Its rows and columns: stacked matrices lie below each other."""
    group: dict[str, Any]
    """The optimizer's group, which has lr and weight_decay."""
    pieces: list[list[Piece]]
    """By tensor rank: the pieces of Hugging Face matrices in that rank's share."""
    own: int
    """This rank's place among them."""
    ranks: dist.ProcessGroup
    """Those ranks."""


class WithMuon:
    """An optimizer of torch's kind: its own for most parameters, Muon for `matrices`, which are in its groups too."""

    def __init__(self, adamw: Any, matrices: Sequence[Matrix], shapes: dict[str, tuple[int, ...]], beta: float) -> None:
        self.adamw, self._matrices, self._shapes, self._beta = adamw, matrices, shapes, beta
        for matrix in matrices:
            adamw.state[matrix.main] = {MOMENT: torch.zeros_like(matrix.main)}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.adamw, name)

    @torch.no_grad()
    def step(self) -> None:
        """One update of every parameter that has a gradient."""
        gradients = [matrix.main.grad for matrix in self._matrices]
        for matrix in self._matrices:
            matrix.main.grad = None  # what has none is left alone
        self.adamw.step()
        for matrix, gradient in zip(self._matrices, gradients, strict=True):
            matrix.main.grad = gradient
            if gradient is not None:
                self._update(matrix, gradient)

    def _update(self, matrix: Matrix, gradient: torch.Tensor) -> None:
        """Nesterov momentum, made orthogonal; decoupled decay. As in https://kellerjordan.github.io/posts/muon, with
        the scale of https://arxiv.org/abs/2502.16982 (equation 4): an update is about as large as AdamW's."""
        momentum = self.adamw.state[matrix.main][MOMENT]
        momentum.mul_(self._beta).add_(gradient)
        change = self._orthogonal(matrix, (gradient + self._beta * momentum).reshape(matrix.shape)).view_as(matrix.main)
        rate = matrix.group["lr"]
        matrix.main.mul_(1 - rate * matrix.group["weight_decay"]).add_(change, alpha=-rate)

    def _orthogonal(self, matrix: Matrix, update: torch.Tensor) -> torch.Tensor:
        """This rank's share [rows, columns] of the scaled orthogonal matrices."""
        shares = [torch.empty_like(update) for _ in matrix.pieces]
        dist.all_gather(shares, update.contiguous(), group=matrix.ranks)
        whole: dict[str, torch.Tensor] = {}
        for share, pieces in zip(shares, matrix.pieces, strict=True):
            for piece in pieces:
                place = whole.setdefault(piece.name, update.new_zeros(self._shapes[piece.name]))
                _rows(place, piece, share.shape[1]).copy_(share[piece.local_row : piece.local_row + piece.num_rows])
        made = _all_orthogonal(whole)
        out = torch.empty_like(update)
        for piece in matrix.pieces[matrix.own]:
            out[piece.local_row : piece.local_row + piece.num_rows] = _rows(made[piece.name], piece, out.shape[1])
        return out


def _rows(whole: torch.Tensor, piece: Piece, columns: int) -> torch.Tensor:
    return whole[piece.row : piece.row + piece.num_rows, piece.col : piece.col + columns]


def _all_orthogonal(matrices: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Matrices of the same shape, such as those of experts, are done together."""
    made: dict[str, torch.Tensor] = {}
    for shape in dict.fromkeys(tuple(each.shape) for each in matrices.values()):
        names = [name for name, each in matrices.items() if tuple(each.shape) == shape]
        together = orthogonal(torch.stack([matrices[name] for name in names])) * (0.2 * max(shape) ** 0.5)
        made |= dict(zip(names, together, strict=True))
    return made


def orthogonal(x: torch.Tensor) -> torch.Tensor:
    """Nearly the nearest orthogonal matrix of each of [n, rows, columns]: five Newton-Schulz iterations, which bring
    the singular values near 1 (between 0.7 and 1.2, but for those that were next to 0)."""
    a, b, c = _COEFFICIENTS
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(_ITERATIONS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x
