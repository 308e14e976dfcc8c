"""What Keras has under private names and nothing else offers. With `trainer`, the
place of this folder; the others are `fitting.streams` (data adapters) and `optimizer`
with `finite_updates` (the update step).
"""

import keras


def sublayers(layer, recursive=False):
    """List of the layers inside a layer, in the order of their creation.

    With `recursive` those inside them follow, and the layer itself leads.
    """
    return list(layer._flatten_layers(recursive=recursive, include_self=recursive))


def has_stepped(optimizer):
    """Whether the optimizer's last call changed weights, not only summed gradients.

    It is a bool, or a scalar bool tensor.
    """
    inner = inner_optimizer(optimizer)
    every = inner.gradient_accumulation_steps
    stepped = inner._iterations % every == 0 if every else True
    if hasattr(inner, "skipped_in_a_row"):
        stepped = keras.ops.logical_and(stepped, inner.skipped_in_a_row == 0)
    return stepped


def steps_taken(optimizer):
    """Variable: batches that an optimizer has seen, accumulated ones among them."""
    return inner_optimizer(optimizer)._iterations


def is_schedule_free(optimizer):
    """Whether an optimizer, or the one inside it, is a schedule-free AdamW."""
    return isinstance(inner_optimizer(optimizer), keras.optimizers.ScheduleFreeAdamW)


def schedule_free_averages(optimizer):
    """The averages x that a schedule-free AdamW trains.

    Returns:
        dict of the `id` of each variable that it trains to the average, a tensor; empty
        for other optimizers.
    """
    if not is_schedule_free(optimizer):
        return {}
    optimizer = inner_optimizer(optimizer)
    share = optimizer.beta_1
    pairs = zip(optimizer._trainable_variables, optimizer._momentums, strict=True)
    # The variable is the mean of x and what gradients move, with these shares.
    return {id(v): (v.value - (1.0 - share) * m.value) / share for v, m in pairs}


def inner_optimizer(optimizer):
    """The optimizer that updates and counts: of a `LossScaleOptimizer`, that inside."""
    return getattr(optimizer, "inner_optimizer", optimizer)
