"""Errors that a user can mend. Everything here ends a command with exit code 2 and one message."""


class UserError(Exception):
    """Bad usage, configuration or input; the message names the place and the mend."""


class ConfigError(UserError):
    """An unknown key, a bad value, or an impossible combination of values."""


class DataError(UserError):
    """A data file or data set that is absent, unreadable or malformed."""


class WeightsError(UserError):
    """A checkpoint whose tensors or config.json do not fit the model."""


class HubError(UserError):
    """A model or data set that could not be fetched from the Hugging Face Hub."""
