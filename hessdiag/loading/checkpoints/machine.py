"""What the steps of a pickle would make, followed without making it."""

from __future__ import annotations

from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import _weights_only_unpickler as weights_only

from hessdiag.errors import RefusedError
from hessdiag.loading.checkpoints.words import ALONE

__all__ = ["Look", "Machine", "Thing"]

_DEEPEST = 500
_OPERATIONS_READ = frozenset(
    {
        *("PROTO", "STOP", "GLOBAL", "NEWOBJ", "REDUCE", "BUILD", "MARK", "APPEND", "APPENDS", "SETITEM", "SETITEMS"),
        *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET", "NONE"),
        *("NEWFALSE", "NEWTRUE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"),
        *("SHORT_BINSTRING", "BINPERSID", "BINGET", "LONG_BINGET", "BINPUT", "LONG_BINPUT"),
    }
)
"""What the unpickler of ``weights_only`` understands."""


@dataclass(eq=False, slots=True)
class Thing:
    """What a pickle would make.

    Attributes:
        kind: ``global``, ``object`` (something that was called), ``dict``, ``list``, ``tuple``, ``storage``.
        name: of a global, its dotted name; of an object, that of the global that makes it.
        items: what it holds.
        keys: of a dict, or an object that is filled like one, what stands under its texts and whole numbers.
        depth: how deep tuples lie in it.
    """

    kind: str
    name: str = ""
    items: list[Any] = field(default_factory=list)
    keys: dict[Any, Any] | None = None
    depth: int = 0


@dataclass(slots=True)
class Look:
    """What is seen of one pickle.

    Attributes:
        globals: the dotted names that it calls or holds, in order.
        filled: by name, how what they make is filled afterwards: ``items`` like a dict, ``appended`` like a list.
        storages: by key, the bytes that the pickle says the storage has.
        protocol: the pickle's version.
        unread: operations that ``weights_only`` does not know.
        result: what the whole pickle makes.
    """

    globals: dict[str, None] = field(default_factory=dict)
    filled: dict[str, set[str]] = field(default_factory=dict)
    storages: dict[str, int] = field(default_factory=dict)
    protocol: int = 0
    unread: set[str] = field(default_factory=set)
    result: Any = None

    def unsafe(self) -> list[str]:
        """The globals that ``weights_only`` refuses."""
        known = weights_only._get_allowed_globals()
        return [name for name in self.globals if name not in known]


class Machine:
    """The pickle machine, with names in the place of what they stand for; one for each pickle."""

    def __init__(self) -> None:
        self.seen = Look()
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        if name not in _OPERATIONS_READ:
            self.seen.unread.add(name)
        handler = _HANDLERS.get(name)
        if handler is None:
            raise KeyError(name)
        handler(self, argument)

    def push(self, item: Any) -> None:
        self.stack.append(item)

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.outer.pop()
        return items

    def mark(self, _: Any) -> None:
        self.outer.append(self.stack)
        self.stack = []

    def pop(self, _: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.since_mark()

    def pop_mark(self, _: Any) -> None:
        self.since_mark()

    def put(self, index: Any) -> None:
        self.memo[len(self.memo) if index is None else index] = self.stack[-1]

    def get(self, index: Any) -> None:
        self.push(self.memo[index])

    def tuple_of(self, items: list[Any]) -> None:
        depth = 1 + max((item.depth for item in items if isinstance(item, Thing)), default=0)
        if depth > _DEEPEST:  # Python recurses without a limit where it hashes such a key
            raise RefusedError(f"refused: its pickle nests tuples more than {_DEEPEST} deep, as no weights do. {ALONE}")
        self.push(Thing("tuple", items=items, depth=depth))

    def tuple_of_last(self, count: int) -> None:
        if len(self.stack) < count:
            raise IndexError
        items = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        self.tuple_of(items)

    def dict_of(self, items: list[Any]) -> None:
        self.push(Thing("dict"))
        self.set_items(items)

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        target.items.extend(items)
        if target.kind == "object":
            self.seen.filled.setdefault(target.name, set()).add("appended")

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        target.items.extend(items)
        if target.keys is None:
            target.keys = {}
        for key, value in zip(items[::2], items[1::2], strict=True):
            if isinstance(key, (str, int)):
                target.keys[key] = value
        if target.kind == "object":
            self.seen.filled.setdefault(target.name, set()).add("items")

    def name_global(self, module: str, name: str) -> None:
        # As torch and pickle do where a pickle's protocol is 2 or less: Python 2 called things otherwise.
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        dotted = f"{module}.{name}"
        self.seen.globals[dotted] = None
        self.push(Thing("global", dotted))

    def stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise TypeError
        self.name_global(module, name)

    def make(self, maker: Any, held: list[Any]) -> None:
        name = maker.name if isinstance(maker, Thing) else ""
        depth = max((item.depth for item in held if isinstance(item, Thing)), default=0)
        self.push(Thing("object", name, items=[maker, *held], depth=depth))

    def reduce(self, _: Any) -> None:
        held = self.stack.pop()
        self.make(self.stack.pop(), [held])

    def reduce_with_keywords(self, _: Any) -> None:
        keywords, held = self.stack.pop(), self.stack.pop()
        self.make(self.stack.pop(), [held, keywords])

    def instance(self, argument: str) -> None:
        held = self.since_mark()
        module, _, name = argument.partition(" ")
        self.name_global(module, name)
        self.make(self.stack.pop(), held)

    def instance_of(self, _: Any) -> None:
        maker, *held = self.since_mark()
        self.make(maker, held)

    def build(self, _: Any) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Thing):
            target.items.append(state)

    def persistent(self, identity: Any) -> None:
        if isinstance(identity, Thing) and identity.kind == "tuple" and len(identity.items) >= 5:
            kind, key, count = identity.items[1], identity.items[2], identity.items[4]
            if isinstance(kind, Thing) and isinstance(count, int):
                size = count * _ELEMENT_BYTES.get(kind.name, 1)
                self.seen.storages[str(key)] = max(size, self.seen.storages.get(str(key), 0), key=abs)
        if isinstance(identity, Thing) and "module" in identity.items[:1]:
            self.seen.unread.add("a class with its source")  # as torch wrote modules before 1.6
        self.push(Thing("storage", items=[identity]))

    def stop(self, _: Any) -> None:
        self.seen.result = self.stack.pop()

    def protocol(self, version: int) -> None:
        self.seen.protocol = version


_ELEMENT_BYTES = {f"torch.{name}": kind.itemsize for kind, name in torch.storage._dtype_to_storage_type_map().items()}
_ELEMENT_BYTES |= {"torch.QUInt4x2Storage": 0, "torch.QUInt2x4Storage": 0}  # several in a byte: not checked

_Handler = Callable[[Machine, Any], None]

_INTEGERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4")
_TEXTS = ("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8")
_ATOMS = (
    *("NONE", "NEWTRUE", "NEWFALSE", "FLOAT", "BINFLOAT"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "NEXT_BUFFER"),
)

_HANDLERS: dict[str, _Handler] = {
    **dict.fromkeys((*_INTEGERS, *_TEXTS), lambda machine, argument: machine.push(argument)),
    **dict.fromkeys(_ATOMS, lambda machine, _: machine.push(None)),
    **dict.fromkeys(("FRAME", "READONLY_BUFFER"), lambda machine, _: None),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), Machine.get),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), Machine.reduce),
    "NEWOBJ_EX": Machine.reduce_with_keywords,
    "INST": Machine.instance,
    "OBJ": Machine.instance_of,
    "BUILD": Machine.build,
    "GLOBAL": lambda machine, argument: machine.name_global(*argument.split(" ", 1)),
    "STACK_GLOBAL": Machine.stack_global,
    **{
        code: lambda machine, number: machine.name_global("copyreg", f"extension {number}")
        for code in ("EXT1", "EXT2", "EXT4")
    },
    "MARK": Machine.mark,
    "POP": Machine.pop,
    "POP_MARK": Machine.pop_mark,
    "DUP": lambda machine, _: machine.push(machine.stack[-1]),
    "EMPTY_TUPLE": lambda machine, _: machine.tuple_of([]),
    "TUPLE": lambda machine, _: machine.tuple_of(machine.since_mark()),
    "TUPLE1": lambda machine, _: machine.tuple_of_last(1),
    "TUPLE2": lambda machine, _: machine.tuple_of_last(2),
    "TUPLE3": lambda machine, _: machine.tuple_of_last(3),
    "EMPTY_LIST": lambda machine, _: machine.push(Thing("list")),
    "EMPTY_SET": lambda machine, _: machine.push(Thing("list")),
    "LIST": lambda machine, _: machine.push(Thing("list", items=machine.since_mark())),
    "FROZENSET": lambda machine, _: machine.push(Thing("list", items=machine.since_mark())),
    "EMPTY_DICT": lambda machine, _: machine.push(Thing("dict")),
    "DICT": lambda machine, _: machine.dict_of(machine.since_mark()),
    "APPEND": lambda machine, _: machine.append([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.since_mark()),
    "ADDITEMS": lambda machine, _: machine.append(machine.since_mark()),
    "SETITEM": lambda machine, _: machine.set_items([machine.stack.pop(-2), machine.stack.pop()]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.since_mark()),
    "PERSID": lambda machine, argument: machine.persistent(argument),
    "BINPERSID": lambda machine, _: machine.persistent(machine.stack.pop()),
    "PROTO": Machine.protocol,
    "STOP": Machine.stop,
}
