"""The error of a failed check."""

from run_config.errors import ConfigError


class CheckError(ConfigError):
    """The parameters of a run are wrong or cannot be used. The message has one sentence per line."""
