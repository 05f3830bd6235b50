"""Read a pickle without unpickling: a few of its opcodes build plain values, and none can call anything.

For the python layout of CIFAR-10, whose batches are dictionaries of lists, strings and one numpy array,
written by Python 2. What a pickle would call is kept as a `Call`, for the reader to make sense of.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


class BadPickle(ValueError):
    """The bytes are no pickle, or one that holds more than plain values and arrays of bytes."""


@dataclass(slots=True)
class Call:
    """What unpickling would have called: `name` ("module attribute"), its arguments, the state set after."""

    name: str
    arguments: tuple[Any, ...] = ()
    state: Any = None


_MARK = object()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = frozenset(  # opcodes whose argument is the value
    [
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG",
        "LONG1",
        "FLOAT",
        "BINFLOAT",
        "STRING",
        "BINSTRING",
        "SHORT_BINSTRING",
        "BINBYTES",
        "SHORT_BINBYTES",
        "UNICODE",
        "BINUNICODE",
        "SHORT_BINUNICODE",
    ]
)
_IGNORED = frozenset({"PROTO", "FRAME", "STOP"})


class _Reader:
    """The stack and the memo of the pickle machine."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def take(self, opcode: str, argument: Any) -> None:
        """Carry out one opcode; raises BadPickle for one that plain values do not need."""
        if opcode in _IGNORED:
            return
        if opcode in _LITERALS:
            self.stack.append(argument)
        elif opcode in _CONSTANTS:
            self.stack.append(_CONSTANTS[opcode])
        elif opcode in _ACTIONS:
            _ACTIONS[opcode](self, argument)
        else:
            raise BadPickle(f"the opcode {opcode} has no place in plain data")

    def pop_marked(self) -> list[Any]:
        """Everything above the last mark, which goes too."""
        at = len(self.stack) - 1 - self.stack[::-1].index(_MARK)
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def pop(self, count: int) -> tuple[Any, ...]:
        """The last `count` values, in the order they were pushed."""
        items = tuple(self.stack[-count:])
        del self.stack[-count:]
        return items


def _put(reader: _Reader, key: int | None) -> None:
    reader.memo[len(reader.memo) if key is None else int(key)] = reader.stack[-1]


def _set_items(reader: _Reader, items: list[Any]) -> None:
    reader.stack[-1].update(zip(items[::2], items[1::2], strict=True))


def _reduce(reader: _Reader, _: object) -> None:
    called, arguments = reader.pop(2)
    reader.stack.append(Call(called.name, arguments))


def _build(reader: _Reader, _: object) -> None:
    (state,) = reader.pop(1)
    reader.stack[-1].state = state


_ACTIONS: dict[str, Callable[[_Reader, Any], Any]] = {
    "MARK": lambda r, _: r.stack.append(_MARK),
    "GET": lambda r, key: r.stack.append(r.memo[int(key)]),
    "BINGET": lambda r, key: r.stack.append(r.memo[key]),
    "LONG_BINGET": lambda r, key: r.stack.append(r.memo[key]),
    "PUT": _put,
    "BINPUT": _put,
    "LONG_BINPUT": _put,
    "MEMOIZE": _put,
    "EMPTY_DICT": lambda r, _: r.stack.append({}),
    "EMPTY_LIST": lambda r, _: r.stack.append([]),
    "EMPTY_TUPLE": lambda r, _: r.stack.append(()),
    "DICT": lambda r, _: _dict(r, r.pop_marked()),
    "LIST": lambda r, _: r.stack.append(r.pop_marked()),
    "TUPLE": lambda r, _: r.stack.append(tuple(r.pop_marked())),
    "TUPLE1": lambda r, _: r.stack.append(r.pop(1)),
    "TUPLE2": lambda r, _: r.stack.append(r.pop(2)),
    "TUPLE3": lambda r, _: r.stack.append(r.pop(3)),
    "APPEND": lambda r, _: _append(r, list(r.pop(1))),
    "APPENDS": lambda r, _: _append(r, r.pop_marked()),
    "SETITEM": lambda r, _: _set_items(r, list(r.pop(2))),
    "SETITEMS": lambda r, _: _set_items(r, r.pop_marked()),
    "GLOBAL": lambda r, name: r.stack.append(Call(name)),
    "STACK_GLOBAL": lambda r, _: r.stack.append(Call(" ".join(r.pop(2)))),
    "REDUCE": _reduce,
    "BUILD": _build,
}


def _dict(reader: _Reader, items: list[Any]) -> None:
    reader.stack.append({})
    _set_items(reader, items)


def _append(reader: _Reader, items: list[Any]) -> None:
    reader.stack[-1].extend(items)


def read_pickle(data: bytes) -> object:
    """The value of a pickle, plain values as they are and everything else as `Call`; raises BadPickle."""
    reader = _Reader()
    try:
        for opcode, argument, _ in pickletools.genops(data):
            reader.take(opcode.name, argument)
        (value,) = reader.stack
    except BadPickle:
        raise
    except Exception as err:  # genops and the stack raise ValueError, IndexError, KeyError, ... by turns
        raise BadPickle("this is not a whole pickle") from err
    return value


def read_byte_array(value: object) -> NDArray[np.uint8]:
    """The uint8 array that `value`, a Call of numpy's, stands for; raises BadPickle for any other."""
    state = value.state if isinstance(value, Call) and value.name.endswith(" _reconstruct") else None
    match state:
        case (_, tuple() as shape, Call(arguments=("u1", *_)), False, data):
            return np.frombuffer(_read_bytes(data), np.uint8).reshape(shape)
    raise BadPickle("expected an array of bytes in row-major order")


def _read_bytes(data: object) -> bytes:
    """Bytes as Python 2 wrote them (a latin-1 string here), Python 3, or Python 3 for Python 2."""
    match data:
        case bytes():
            return data
        case str():
            return data.encode("latin-1")
        case Call(name="_codecs encode", arguments=(str() as text, "latin1")):
            return text.encode("latin-1")
    raise BadPickle("an array without bytes")
