"""Measures what it saves to compute the condition once a sampling run.

    python tools/benchmark_condition.py --preset mdm_s64_text

times one prediction of the network, as a sampling step makes it, with the tokens, keys
and values of the text made beforehand (as `MDM.generate` does) and made anew (as it
would be without that). The two alternate, and processor time is counted, which other
programs on the machine disturb little; on an accelerator it is the wall clock.
"""

import statistics
import time
from functools import partial

from benchmark_model import make_condition
from shared import make_parser


def measure(mdm, batch, repeat):
    """Median seconds of a prediction with the condition made once, and made anew."""
    import keras
    from keras import ops

    from keras_mdm import backend

    def compiled(function):
        program = backend.compile_with_weights(function, network.variables, True)
        return partial(program, list(map(ops.convert_to_tensor, network.variables)))

    network = mdm.network
    features, _ = make_condition(mdm, batch, network.conditioner.max_tokens)
    features = keras.tree.map_structure(ops.convert_to_tensor, features)
    shape = (network.image_channels,)
    images = [ops.zeros((batch, r, r, *shape)) for r in network.levels]
    timesteps = ops.zeros((batch,), "int32")
    encode = compiled(network.encode_condition)
    programs = {
        "once": compiled(
            lambda condition: network.denoise(images, timesteps, condition)[0]
        ),
        "anew": compiled(
            lambda features: network.denoise(
                images, timesteps, network.encode_condition(features)
            )[0]
        ),
    }
    inputs = {"once": encode(features), "anew": features}
    clock = time.process_time if backend.on_cpu() else time.perf_counter
    times = {"once": [], "anew": []}
    for _ in range(repeat + 1):
        for name, program in programs.items():
            start = clock()
            keras.tree.map_structure(ops.convert_to_numpy, program(inputs[name]))
            times[name].append(clock() - start)
    # The first one compiles.
    return tuple(statistics.median(times[name][1:]) for name in ("once", "anew"))


def main(arguments=None):
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--preset", default="mdm_shapes_64", help="on text")
    add("--batch", type=int, default=2, help="pictures")
    add("--repeat", type=int, default=15, help="samples of each time")
    args = parser.parse_args(arguments)

    import keras_mdm
    from keras_mdm.networks.cost import count_condition_flops, count_flops

    mdm = keras_mdm.MDM.from_preset(args.preset, load_weights=False, ema_momentum=None)
    tokens = mdm.network.conditioner.max_tokens
    features, _ = make_condition(mdm, 1, tokens)
    whole = sum(count_flops(mdm.network, features).values())
    share = sum(count_condition_flops(mdm.network, features).values()) / whole
    once, anew = measure(mdm, args.batch, args.repeat)
    print(
        f"{args.preset}, {tokens} tokens, batch {args.batch}: {once * 1e3:.1f} ms a "
        f"step with keys and values made once, {anew * 1e3:.1f} ms made anew: "
        f"{anew / once:.2f} times. They are {share:.1%} of the step's FLOPs."
    )


if __name__ == "__main__":
    main()
