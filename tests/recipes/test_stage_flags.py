"""From flags to stages, in `recipes/training.py`."""

import argparse

import pytest
from helpers import tiny_mdm


@pytest.fixture
def make_stages(recipe):
    """A function from flags to the stages of a nest of 4, 8 and 16 pixels."""
    mdm = tiny_mdm(levels=3, resolution=4)

    def make(*flags):
        parser = argparse.ArgumentParser()
        recipe.training_flags.add_stage_flags(parser)
        recipe.training_flags.add_model_flags(parser)
        args = parser.parse_args(flags)
        args.preset = "mdm_tiny_64"
        defaults = recipe.training.fill_defaults(args)
        return args, recipe.training.make_stages(args, mdm, defaults)

    return make


def test_stages_that_are_not_described_have_defaults(make_stages, recipe):
    defaults = recipe.training.SMALL_STAGES
    args, stages = make_stages("--batch-size", "2")
    assert [stage.resolution for stage in stages] == [4, 8, 16]
    assert tuple(stage.steps for stage in stages) == defaults["steps"]
    first, later = defaults["learning_rate"]
    assert [stage.learning_rate for stage in stages] == [first, later, later]
    assert [stage.warmup_steps for stage in stages] == [*defaults["warmup_steps"]] * 3
    assert [stage.batch_size for stage in stages] == [2, 2, 2]
    assert {stage.decay for stage in stages} == {"log_snr_cosine"}
    # What config.json says, for `--resume`.
    assert args.steps == list(defaults["steps"])


def test_one_stage_takes_the_first_default(make_stages, recipe):
    _, (stage,) = make_stages("--resolutions", "8")
    assert stage.steps == recipe.training.SMALL_STAGES["steps"][0]
    assert not stage.freeze_inner


def test_inner_dolls_are_frozen_where_a_stage_before_has_trained_them(make_stages):
    def frozen(*flags):
        return [stage.freeze_inner for stage in make_stages(*flags)[1]]

    assert frozen() == [False, True, True]
    assert frozen("--no-freeze-inner") == [False, False, False]
    assert frozen("--resolutions", "4", "16") == [False, False]
