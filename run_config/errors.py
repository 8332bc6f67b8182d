"""The errors of run_config."""

from run_config.exit_codes import WRONG_INPUT


class ConfigError(Exception):
    """A parameter or a configuration key is wrong. The message names it and says what to do."""

    exit_code = WRONG_INPUT
