"""Whether a plug-in has the shape of its part: methods, their arguments, a context that yields once, the tensor asked
for.

Invariant: a mistake in the shape is an error of the request, which says where the plug-in defines it. What a plug-in's
own code raises is none.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import get_args

import torch

from harness.scenario.bases import Op
from harness.system.boundary import Misshapen
from harness.system.context import PoolPolicy, ProcessGroup
from harness.trace.raising import Part

POOL = {"use": "group"}
TEARDOWN = {"close": ""}
"""What a policy has beside `POOL`, unless it says `forever`."""
COLLECTIVES = {"all_gather": "context, output, source", "reduce_scatter": "context, output, source, op"}
MORE_COLLECTIVES = {
    "all_reduce": "context, output, source, op",
    "all_to_all": "context, output, source",
    "all_to_allv": "context, output, source, splits",
    "broadcast": "context, output, source, root",
}
"""Operations that a plug-in may have beside those. The library makes the calls of one that it has not."""
FUNCTIONAL = {"all_gather": "context, source", "reduce_scatter": "context, source, op"}
MORE_FUNCTIONAL = {
    "all_reduce": "context, source, op",
    "all_to_all": "context, source",
    "all_to_allv": "context, source, splits",
}
"""Those of collectives that say `functional`: each returns a tensor of its own."""
ALONG = {"all_gather": "context, source, dim"}
"""In place of the one above, of those that also say `along`."""
BUILT_IN = "harness.system.collectives"
"""The module of the built-in collectives that plug-ins inherit from."""
LIFE = {"open": "context", "close": "context"}
"""Methods that collectives may have for every communicator, of either form."""
TELLS = ("functional", "uneven", "strided", "along", "captures", "pulls")
"""What collectives may say of themselves with a bool."""
STRIDED = ("all_gather", "all_to_all", "broadcast")
"""Calls that move data: no peer reads their source, unless the plug-in says so."""
OPTIONAL = {"agreed": "sizes", "wants": "group, nbytes", "comm_ptr": "group"}
"""Methods that a policy may have beside those."""
WIDEST = 4
"""Bytes of an element that plug-ins reduce."""
OPS = ("sum", "avg")
"""With which a plug-in of collectives reduces, unless it names others in `ops`."""
SAID = {"observed": bool, "forever": bool, "fallback": str}
"""What a policy may say of itself, by attributes of its class."""
LARGEST = 1 << 30
"""Elements that a policy may agree on; more is a mistake."""
DIRECT = 2
"""Frames from `_used` to `contextlib`. A context that the plug-in itself enters is further away."""
MISCOUNTS = {"generator didn't yield": "does not yield", "generator didn't stop": "yields more than once"}
"""What `contextlib` says of a generator that is no context."""


def check_pool(policy: object) -> None:
    """Raise `Misshapen` unless a policy, or a class of policies, has its methods."""
    for problem in pool_problems(policy):
        raise problem


def pool_problems(policy: object) -> Iterator[Misshapen]:
    """Everything that a policy, or a class of policies, lacks."""
    optional = {name: arguments for name, arguments in OPTIONAL.items() if hasattr(policy, name)}
    yield from _methods("pool", policy, POOL | ({} if is_forever(policy) else TEARDOWN) | optional)
    for name, kind in SAID.items():
        if not isinstance(said := getattr(policy, name, kind()), kind):
            text = f"says {name} = {said!r}, which is no {kind.__name__}"
            yield Misshapen("pool", _class_of(policy), text, f"{name} = {kind()!r}, or another {kind.__name__}")


def is_observed(policy: object) -> bool:
    """Whether a policy, or a class of policies, says that it calls NCCL by itself."""
    return getattr(policy, "observed", False) is True


def is_forever(policy: object) -> bool:
    """Whether a policy, or a class of policies, says that it has no teardown."""
    return getattr(policy, "forever", False) is True


def is_functional(kernels: object) -> bool:
    """Whether collectives say that they return their results."""
    return getattr(kernels, "functional", False) is True


def takes_strides(kernels: object, kind: str) -> bool:
    """Whether collectives say that they take a source that is not contiguous."""
    return kind in STRIDED and getattr(kernels, "strided", False) is True


def is_captured(kernels: object) -> bool:
    """Whether collectives say that graphs may hold their calls."""
    return getattr(kernels, "captures", False) is True


def pulls(kernels: object, kind: str) -> bool:
    """Whether collectives say that peers read the source of a call that moves data."""
    return kind in STRIDED and getattr(kernels, "pulls", False) is True


def gathers_along(kernels: object) -> bool:
    """Whether collectives that return their results say that they gather along a dimension."""
    return is_functional(kernels) and getattr(kernels, "along", False) is True


def check_collectives(kernels: object) -> None:
    """Raise `Misshapen` unless an object has the methods of collectives, of the form that it says."""
    for problem in collectives_problems(kernels):
        raise problem


def collectives_problems(kernels: object) -> Iterator[Misshapen]:
    """Everything that an object, or a class, lacks of collectives of the form that it says."""
    subject = _class_of(kernels)
    for name in TELLS:
        if not isinstance(said := getattr(kernels, name, False), bool):
            text = f"says {name} = {said!r}, which is no bool"
            yield Misshapen("collectives", subject, text, f"{name} = True, or False")
    if not isinstance(fallback := getattr(kernels, "fallback", ""), str):
        text = f"says fallback = {fallback!r}, which is no str"
        yield Misshapen("collectives", subject, text, 'fallback = "triton", or the name of other collectives')
    if getattr(kernels, "along", False) and not is_functional(kernels):
        text = "says along = True, and not functional = True"
        yield Misshapen("collectives", subject, text, "functional = True beside it")
    methods, more = (FUNCTIONAL, MORE_FUNCTIONAL) if is_functional(kernels) else (COLLECTIVES, MORE_COLLECTIVES)
    methods = methods | (ALONG if gathers_along(kernels) else {})
    there = {name: arguments for name, arguments in (more | LIFE).items() if _has(kernels, name)}
    yield from _methods("collectives", kernels, methods | there)
    if not set(OPS) <= set(ops := _named(getattr(kernels, "ops", OPS))) <= set(get_args(Op)):
        known = ", ".join(get_args(Op))
        text = f"says ops = {ops!r}, and not {' and '.join(OPS)} with others of {known}"
        yield Misshapen("collectives", subject, text, f"ops = {OPS!r}, and others of {known}")


def _class_of(plugin: object) -> type:
    return plugin if isinstance(plugin, type) else type(plugin)


def _named(ops: object) -> tuple[object, ...]:
    return tuple(ops) if isinstance(ops, tuple | list | frozenset | set) else (ops,)


def runs(kernels: object, kind: str, op: str | None, is_uneven: bool, itemsize: int) -> bool:
    """Whether a plug-in runs such a call: it need not have every operation, every reduction, or counts that differ, and
    it adds in fp32 or int32."""
    reduces = op is None or (itemsize <= WIDEST and op in getattr(kernels, "ops", OPS))
    takes = not is_uneven or kind == "all_to_all" or (kind in COLLECTIVES and getattr(kernels, "uneven", False))
    # a broadcast in functional form would have no size on most ranks
    has_it = _has(kernels, method_of(kind, is_uneven)) and (kind != "broadcast" or not is_functional(kernels))
    return has_it and reduces and takes


def _has(kernels: object, name: str) -> bool:
    """Whether a plug-in has a method. One in functional form has none of those that it inherits from the built-in
    ones, which write to an output."""
    if not is_functional(kernels):
        return hasattr(kernels, name)
    owner = next((each for each in _class_of(kernels).__mro__ if name in vars(each)), None)
    return hasattr(kernels, name) and (owner is None or owner.__module__ != BUILT_IN)


def method_of(kind: str, is_uneven: bool) -> str:
    """The method of a plug-in that makes a call of that kind."""
    return "all_to_allv" if kind == "all_to_all" and is_uneven else kind


def check_call(where: Part, call: Callable[..., object], shown: str, count: int) -> None:
    """Raise `Misshapen` unless `call` takes so many arguments by position; what has no signature may take any."""
    try:
        signature = inspect.signature(call)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*range(count))
    except TypeError as error:
        text = f"cannot be called as {shown}: {error}"
        raise Misshapen(where, call, text, f"a signature that takes {shown}") from None


def allocate(
    policy: PoolPolicy, group: ProcessGroup, size: int, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """A tensor from plain `torch.empty` under `use(group)`. Raises `Misshapen` where it is not as asked for."""
    tensor: torch.Tensor | None = None
    with _used(policy, group):
        tensor = torch.empty(size, dtype=dtype, device=device)
    if tensor is None:
        raise Misshapen("pool", policy.use, "has a use() that hides what is raised inside it")
    for what, found, asked in (
        ("dtype", tensor.dtype, dtype),
        ("shape", [*tensor.shape], [size]),
        ("strides", [*tensor.stride()], [1]),
        ("device", tensor.device.type, device.type),
    ):
        if found != asked:
            text = f"has a use() under which torch.empty gives {what} {found} and not {asked}"
            raise Misshapen("pool", policy.use, text)
    return tensor


def agreed_on(agreed: Callable[[list[int]], object], sizes: list[int]) -> int:
    """What a policy's `agreed` gives, if every rank's size fits into it. Raises `Misshapen`."""
    size = agreed(sizes)
    if not isinstance(size, int) or not max(sizes) <= size <= LARGEST:
        text = f"has an agreed() that gave {size!r} for {sizes}, and not an int from {max(sizes)} to {LARGEST}"
        raise Misshapen("pool", agreed, text)
    return size


def wanted(wants: Callable[[ProcessGroup, int], object], group: ProcessGroup, nbytes: int) -> bool:
    """What a policy's `wants` gives. Raises `Misshapen` where that is no bool."""
    answer = wants(group, nbytes)
    if not isinstance(answer, bool):
        text = f"has a wants() that gave {answer!r} for {group.name} and {nbytes} bytes, and not a bool"
        raise Misshapen("pool", wants, text)
    return answer


def pointer(comm_ptr: Callable[[ProcessGroup], object], group: ProcessGroup) -> int:
    """What a policy's `comm_ptr` gives. Raises `Misshapen` where that is no address."""
    ptr = comm_ptr(group)
    if not isinstance(ptr, int) or ptr <= 0:
        raise Misshapen("pool", comm_ptr, f"has a comm_ptr() that gave {ptr!r} for {group.name}, and not an address")
    return ptr


def _methods(where: Part, plugin: object, methods: dict[str, str]) -> Iterator[Misshapen]:
    """The methods that a plug-in has not, or not with their arguments."""
    for name, arguments in methods.items():
        written = f"def {name}({', '.join(filter(None, ('self', arguments)))})"
        if not callable(getattr(plugin, name, None)):
            yield Misshapen(where, _class_of(plugin), f"has no method {name!r}", written)
            continue
        count = len(arguments.split(", ")) if arguments else 0
        is_function = isinstance(plugin, type) and inspect.isfunction(inspect.getattr_static(plugin, name))
        if isinstance(plugin, type) and not is_function:
            continue
        try:  # of a class it takes the policy itself, too
            check_call(where, getattr(plugin, name), f"{name}({arguments})", count + is_function)
        except Misshapen as error:
            error.instead = written
            yield error


@contextmanager
def _used(policy: PoolPolicy, group: ProcessGroup) -> Iterator[None]:
    """The policy's own context, which has to yield exactly once."""
    context: object = policy.use(group)
    if not isinstance(context, AbstractContextManager):
        kind = type(context).__name__
        raise Misshapen("pool", policy.use, f"has a use() that gives {kind}, which is no context manager")
    try:
        with context:
            yield
    except RuntimeError as error:
        what = MISCOUNTS.get(str(error))
        if what is None or _depth(error.__traceback__) > DIRECT:
            raise
        raise Misshapen("pool", policy.use, f"has a use() that {what}") from None


def _depth(traceback: TracebackType | None) -> int:
    depth = 0
    while traceback is not None:
        traceback, depth = traceback.tb_next, depth + 1
    return depth
