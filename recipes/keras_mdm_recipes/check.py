"""`--check`: whether model, data and schedule learn at all, in a minute or so."""

import dataclasses

import numpy as np

_STEPS, _PARTS = 200, 10
# A batch that is learned by heart loses more than this share of the loss.
_LEAST = 0.25


def learn_one_batch(mdm, stage, make_dataset):
    """Trains on one batch alone, prints the losses, and says what they mean.

    Args:
        mdm: `MDM`. It is changed.
        stage: `Stage`. The last one of the run: all levels are trained at once.
        make_dataset: Callable from a stage to its data.

    Raises:
        ValueError: if the loss of a resolution does not fall.
    """
    from keras_mdm.training.stage import default_optimizer

    batch = next(iter(make_dataset(stage)))
    check_pictures(batch["videos" if "videos" in batch else "images"])
    mdm.set_active(stage.resolution)
    # The rate of the whole stage, in a few steps; the mean of one batch is that batch.
    stage = dataclasses.replace(
        stage, warmup_steps=0, decay="constant", decay_reference=None, accumulate=1
    )
    mdm.compile(default_optimizer(stage), loss_weights=stage.loss_weights)
    print(
        f"Learning one batch of {stage.batch_size} by heart: {_STEPS} steps with a "
        f"learning rate of {stage.learning_rate:g} by {stage.optimizer}, all "
        "resolutions at once.",
        flush=True,
    )
    found = {resolution: [] for resolution in mdm.resolutions}
    for part in range(_PARTS):
        steps = _STEPS // _PARTS
        log = mdm.fit([batch] * steps, verbose=0).history
        for resolution, losses in found.items():
            losses.append(log[f"loss_{resolution}"][0])
        shown = "  ".join(f"loss_{r} {losses[-1]:.4f}" for r, losses in found.items())
        print(f"  {(part + 1) * steps:4d}/{_STEPS} steps  {shown}", flush=True)
    flat = [
        str(resolution)
        for resolution, losses in found.items()
        # Also if it is NaN.
        if not np.mean(losses[-2:]) < (1.0 - _LEAST) * losses[0]
    ]
    if flat:
        raise ValueError(
            f"the loss of resolution {', '.join(flat)} did not fall by {_LEAST:.0%} on "
            "one batch, which a model that learns knows by heart by then. Try another "
            "stage.learning_rate; look at the pictures (are they noise?), at "
            "stage.loss_weights, and at what is frozen."
        )
    print("All resolutions learn.")


def check_pictures(pictures):
    """Raises a `ValueError` if a batch of pictures has nothing to be learned."""
    rows = pictures.reshape(len(pictures), -1, pictures.shape[-1])
    if (rows == rows[:, :1]).all():
        what = "of a single color"
    elif len(rows) > 1 and (rows == rows[:1]).all():
        what = "the same"
    else:
        return
    raise ValueError(
        f"all {len(rows)} pictures of a batch are {what}: a model learns them whatever "
        "else is wrong. Look at the data, and at how they are read."
    )
