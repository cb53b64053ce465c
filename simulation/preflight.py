"""What a configuration asks for that cannot be, told before anything is rendered: in a dry run too."""

from ccfexp.diffusion import Diffusion
from ccfexp.errors import ConfigError
from ccfexp.evaluation.judge import evaluated_size
from ccfexp.model import config_of_base
from configs.run import RunConfig


def preflight(config: RunConfig) -> None:
    """Compare a configuration with its base and with the evaluators, without loading either.

    Raises:
        ConfigError: a rule that does not go with the sites' ranks, an epsilon for which no noise is enough, a size that
            is not the base's and the evaluators', or more sampling steps than the base has timesteps.
        WeightsError: the base is missing, altered, or not a base.
    """
    plan = config.private_plan
    config.federation.rule(
        mixed_ranks=any(rank < config.adapter.rank for rank in config.site_ranks), private=plan is not None
    )
    base, judged = config_of_base(config.base), evaluated_size()
    size = base.unet.image_size
    if config.image_size != size:
        raise ConfigError(f"image_size={config.image_size} must be {size}, the size of the base; set image_size={size}")
    if size != judged:
        raise ConfigError(
            f"image_size={size} must be {judged}, the size that the evaluators of a simulation read; choose a base of "
            "that size"
        )
    Diffusion(base.diffusion).timesteps(config.evaluation.sampling_steps)
