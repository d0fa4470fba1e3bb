"""What Winograd's convolution takes on a GPU, as ``kernels.winograd`` does it."""

from __future__ import annotations

from dataclasses import replace

from kernels.core.tiling import Part, cut_on_gpu, lanes
from kernels.winograd import PATCH, TILE
from training.profile.cost.direct import Direct, largest, mirrored
from training.profile.cost.work import Work

_MATRICES = PATCH * PATCH  # of which one launch makes the products


class Winograd(Direct):
    """A 3×3 convolution by 4×4 tiles. Operations are those that it does, transforms included."""

    @property
    def parts(self) -> list[Part]:
        """Images and rows of tiles."""
        return cut_on_gpu(self.samples, -(-self.output[0] // TILE), self._tile_row_bytes)

    @property
    def _tile_row_bytes(self) -> int:
        across = -(-self.output[1] // TILE)
        return 2 * across * _MATRICES * max(self.channels, self.filters) * self.sums.itemsize

    @property
    def _tiles(self) -> int:
        return self.samples * -(-self.output[0] // TILE) * -(-self.output[1] // TILE)

    def bias(self) -> int:
        return len(self.parts)

    def forward(self) -> Work:
        filters = 2  # brought into order and transformed
        launches = filters
        for part in self.parts:
            launches += self._patches(part) + 2 + self._written(part)  # the products, and their transform
        return Work(self._flops(), launches=launches, workspace=self._scratch())

    def weight_gradient(self) -> Work:
        count = len(lanes(self.parts, _MATRICES * self.channels * self.filters * self.sums.itemsize))
        transformed_and_written = 2
        launches = transformed_and_written + count - 1
        for part in self.parts:
            turned_multiplied_and_added = 3
            launches += self._patches(part) + self._read(part) + turned_multiplied_and_added
        return Work(self._flops(), launches=launches, workspace=count * self._filter_bytes() + self._scratch())

    def input_gradient(self) -> Work:
        """A convolution with the flipped filters; the direct one where they would cut."""
        turned_round = mirrored(self.window, self.image)
        if turned_round is None:
            return super().input_gradient()
        back = replace(self, channels=self.filters, image=self.output, filters=self.channels, window=turned_round)
        return back.forward()

    def _patches(self, part: Part) -> int:
        """Launches that make and transform the patches of a part: with a border, where they reach beyond the image."""
        (height, width), (top, _, left, _) = self.image, self.window.over((self.image[0], self.image[1])).pads
        first, last = part.first_row * TILE - top, part.last_row * TILE + 2 - top
        inside = first >= 0 and last <= height and left == 0 and -(-self.output[1] // TILE) * TILE + 2 <= width
        return 2 + (not inside)

    def _written(self, part: Part) -> int:
        """Launches that put the tiles of a part where they belong: two where they hang over."""
        oh, ow = self.output
        rows = min(oh - part.first_row * TILE, (part.last_row - part.first_row) * TILE)
        whole = rows == (part.last_row - part.first_row) * TILE and ow % TILE == 0
        return 1 if whole and (rows == oh or part.last_image - part.first_image == 1) else 2

    def _read(self, part: Part) -> int:
        """Launches that make and transform the tiles of the output's gradient."""
        oh, ow = self.output
        return 2 + (part.last_row * TILE > oh or ow % TILE > 0)

    def _flops(self) -> int:
        """Of products and transforms of inputs, outputs and filters: as many in each of the three."""
        products = _MATRICES * self._tiles * self.channels * self.filters
        inputs, outputs = _MATRICES**2 * self._tiles * self.channels, 16 * _MATRICES * self._tiles * self.filters
        return 2 * (products + inputs + outputs + 9 * _MATRICES * self.channels * self.filters)

    def _filter_bytes(self) -> int:
        return _MATRICES * self.channels * self.filters * self.sums.itemsize

    def _scratch(self) -> int:
        return self._filter_bytes() + largest(self.parts) * self._tile_row_bytes
