"""An item is one image of a batch: where its bytes are, or why it has none. Item n is answered by line n."""

from collections.abc import Sequence

import msgspec

from service.errors import ServiceError
from service.protocols.status import STATUS
from service.types import Classification, Prediction

ItemId = str | int | None


class ItemError(msgspec.Struct, frozen=True):
    """Why one image has no predictions: the `type` slug of service.errors, its title and a detail."""

    type: str
    title: str
    detail: str


class Item(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of a job's `items` file.

    `id`: the part's, member's or line's name. Its bytes are `size` bytes at `offset` of the job's `images`
    file, or the file `source` of the store its manifest named, listed with that size; with `error` there are
    none.
    """

    id: ItemId
    offset: int = 0
    size: int = 0
    source: str = ""
    error: ItemError | None = None


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the results: `predictions` (and `logits`, if asked for), or `error`."""

    index: int
    id: ItemId
    predictions: Sequence[Prediction] | None = None
    logits: Sequence[float] | None = None
    error: ItemError | None = None


def describe_error(error: ServiceError) -> ItemError:
    """What a caller is told about one image."""
    return ItemError(error.slug, STATUS[error.slug].title, error.detail)


def make_line(index: int, item: Item, answer: Classification) -> Line:
    """The line of an image that was classified."""
    return Line(index, item.id, answer.predictions, answer.logits)


def make_error_line(index: int, item: Item, error: ItemError) -> Line:
    """The line of an image that was not."""
    return Line(index, item.id, error=error)
