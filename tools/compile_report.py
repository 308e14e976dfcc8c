"""What a compiled program says of itself: used by `compile_for.py`."""

import collections
import math
import re

_BYTES = dict(f32=4, bf16=2, f16=2, s32=4, u32=4, pred=1, s8=1, u8=1)
_COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)


def count_operations(text):
    """Operations of a lowered program before its compilation."""
    return sum(
        " = " in line and ("hlo." in line or " call @" in line)
        for line in text.splitlines()
    )


def fused_attention(text):
    """Calls of cuDNN's attention in a lowered program, by name."""
    return dict(collections.Counter(re.findall(r"__cudnn\$\w+", text)))


def entry_of(program):
    """The part of a compiled program's text that runs first: one line a kernel."""
    return program[program.index("\nENTRY ") :]


def collective_bytes(program):
    """Bytes that each kind of collective delivers on one device in a step, by name."""
    kinds, dtypes = "|".join(_COLLECTIVES), "|".join(_BYTES)
    total = collections.Counter()
    for result, name in re.findall(rf"= (.*?) ({kinds})(?:-start)?\(", program):
        for dtype, shape in re.findall(rf"({dtypes})\[([\d,]*)\]", result):
            sizes = [int(size) for size in shape.split(",") if size]
            total[name] += _BYTES[dtype] * math.prod(sizes)
    return dict(total)


def kernels_by_cycles(entry):
    """The kernels of a TPU's program with the cycles that its compiler expects.

    Returns:
        List of tuples `(cycles, part, place, kernel)`, the dearest first; `part` is
        `"forward"`, `"backward"` or `"update"`.
    """
    rows = []
    for line in entry.splitlines():
        cycles = re.search(r'"estimated_cycles":"(\d+)"', line)
        if cycles is None:
            continue
        name = re.search(r'op_name="([^"]*)"', line)
        place = name[1] if name else "?"
        part = "update"
        if "transpose(" in place:
            part = "backward"
        elif "jvp(" in place:
            part = "forward"
        kernel = line.split(" = ")[0].strip()
        rows.append((int(cycles[1]), part, place.split("/", 1)[-1], kernel))
    return sorted(rows, reverse=True)


def times(rows, flops, bytes_accessed, tpu):
    """The expected time of a step of a TPU, from the rows of `kernels_by_cycles`."""
    milliseconds = collections.Counter()
    for cycles, part, *_ in rows:
        milliseconds[part] += cycles / tpu.gigahertz / 1e6
    total = sum(milliseconds.values())
    return {
        "estimated_ms": round(total, 2),
        "estimated_parts_ms": {k: round(v, 2) for k, v in milliseconds.items()},
        "share_of_peak": round(flops / total / tpu.teraflops / 1e9, 3),
        "gbytes_accessed": round(bytes_accessed / 1e9, 1),
    }
