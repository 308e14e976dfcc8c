"""Memory that a training step needs on an accelerator, from its trace alone.

No compiler is asked: what XLA would keep is read off JAX's trace of the step, by rules
that were found in its plans for an H100 (`plan.py` says how near they come):

- Products, convolutions and fused attention read and write memory.
- Reductions and concatenations write memory, and compute what they read on the way.
- All else is computed on the way, once for each reader, unless a product reads it, or
  it joins large values into a smaller one.
- A value is kept from where it is made to where it is last read. Views cost nothing,
  and weights and optimizer state are changed in place.

Used by `plan.py`.
"""

import collections
import dataclasses
import math

_INLINED = ("jit", "pjit", "remat2", "checkpoint", "custom_jvp_call", "custom_vjp_call")
_PRODUCTS = (
    "conv_general_dilated",
    "dot_general",
    "dot_product_attention_fwd_wrapper",
    "dot_product_attention_bwd_wrapper",
    "gather",
    "cond",
    "pallas_call",
    "scan",
    "scatter",
    "scatter-add",
    "sort",
    "while",
)
_WRITTEN = (
    "argmax",
    "concatenate",
    "cumsum",
    "pad",
    "random_bits",
    "reduce_max",
    "reduce_min",
    "reduce_sum",
    "reduce_window_sum",
)
_VIEWS = ("reshape", "squeeze", "expand_dims")
# A value of which another is made by repeating it: its share of the other at most.
_SMALL = 1 / 8


@dataclasses.dataclass(frozen=True)
class Memory:
    """What a step needs beside its arguments.

    Attributes:
        temporary: int. Bytes at the moment when they are most.
        activations: int. Those among them that the forward pass keeps for the backward
            pass; the others are gradients and what is at work.
    """

    temporary: int
    activations: int


@dataclasses.dataclass(frozen=True)
class _Operation:
    name: str
    reads: tuple
    writes: tuple
    is_backward: bool


class _Trace:
    """The operations of a trace in their order, functions in place of their calls.

    Attributes:
        operations: List of `_Operation` on numbered values, without what is not needed.
        sizes: dict of value to bytes.
        arguments, results: Sets of values.
    """

    def __init__(self, closed):
        self.sizes, self.operations = {}, []
        arguments = [self._new(v) for v in closed.jaxpr.invars]
        self.arguments = set(arguments)
        constants = [self._new(v) for v in closed.jaxpr.constvars]
        self.arguments.update(constants)
        results = self._add(closed.jaxpr, arguments, constants)
        self.results = {value for value in results if value is not None}
        self._drop_unneeded()

    def _new(self, variable):
        aval, value = variable.aval, len(self.sizes)
        # Keys of random numbers have no number of bytes, and hardly any.
        itemsize = getattr(aval.dtype, "itemsize", 0)
        self.sizes[value] = math.prod(aval.shape) * itemsize
        return value

    def _add(self, jaxpr, arguments, constants):
        known = dict(zip(jaxpr.invars, arguments, strict=True))
        known |= dict(zip(jaxpr.constvars, constants, strict=True))
        # Numbers written into the program are no values.
        read = lambda v: None if hasattr(v, "val") else known[v]  # noqa: E731
        for equation in jaxpr.eqns:
            name, reads = equation.primitive.name, [read(v) for v in equation.invars]
            if name in _INLINED:
                parameters = equation.params
                inner = parameters.get("jaxpr") or parameters["call_jaxpr"]
                constants = [None] * len(getattr(inner, "consts", ()))
                writes = self._add(getattr(inner, "jaxpr", inner), reads, constants)
            else:
                writes = [self._new(v) for v in equation.outvars]
                operation = _Operation(
                    name,
                    tuple(value for value in reads if value is not None),
                    tuple(writes),
                    "transpose(" in str(equation.source_info.name_stack),
                )
                self.operations.append(operation)
            known.update(zip(equation.outvars, writes, strict=True))
        return [read(v) for v in jaxpr.outvars]

    def _drop_unneeded(self):
        needed, kept = set(self.results), []
        for operation in reversed(self.operations):
            if needed.intersection(operation.writes):
                kept.append(operation)
                needed.update(operation.reads)
        self.operations = kept[::-1]


def _read_by_products(trace):
    """Values that lie in memory because a product reads them, or a view of them."""
    found = set()
    for operation in reversed(trace.operations):
        viewed = operation.name in _VIEWS and operation.writes[0] in found
        if operation.name in _PRODUCTS or viewed:
            found.update(operation.reads)
    return found


def _sources(trace):
    """Values in memory, and of every value those that it is computed of.

    Returns:
        A pair: the set of values that are written to memory, and a dict of value to the
        set of those that are read where it is used; arguments are left out.
    """
    wanted, sizes = _read_by_products(trace), trace.sizes
    written, sources = set(), collections.defaultdict(set)
    for operation in trace.operations:
        read = set().union(*(sources[value] for value in operation.reads))
        for value in operation.writes:
            size = sizes[value]
            large = [sizes[one] for one in read if sizes[one] > _SMALL * size]
            if operation.name in _VIEWS:
                is_written = False
            elif operation.name in _PRODUCTS + _WRITTEN or value in wanted:
                is_written = True
            else:
                is_written = len(large) > 1 and size < sum(large)
            if is_written:
                written.add(value)
            sources[value] = {value} if is_written else read
    return written, sources


def planned_memory(closed):
    """What a training step needs beside its arguments.

    Args:
        closed: `jax.core.ClosedJaxpr` of the step: `jax.jit(step).trace(...).jaxpr`.

    Returns:
        `Memory`.
    """
    trace = _Trace(closed)
    written, sources = _sources(trace)
    made, last = {}, {}
    backward = len(trace.operations)
    for moment, operation in enumerate(trace.operations):
        if operation.is_backward:
            backward = min(backward, moment)
        here = written.intersection(operation.writes)
        made.update(dict.fromkeys(here, moment))
        last.update(dict.fromkeys(here, moment))
        if here or trace.results.intersection(operation.writes):
            for value in operation.reads:
                last.update(dict.fromkeys(sources[value], moment))
    # Results take the place of arguments.
    lives = [(made[v], last[v], trace.sizes[v]) for v in written - trace.results]
    change = collections.Counter()
    for begin, end, size in lives:
        change[begin] += size
        change[end + 1] -= size
    total = temporary = peak = 0
    for moment in sorted(change):
        total += change[moment]
        if total > temporary:
            temporary, peak = total, moment
    activations = sum(
        size
        for begin, end, size in lives
        if begin < backward <= end and begin <= peak <= end
    )
    return Memory(temporary, activations)
