"""The error family of run_config."""


class ConfigError(Exception):
    """A parameter or a configuration key is wrong; the message names it and says what to do."""

    exit_code = 2
