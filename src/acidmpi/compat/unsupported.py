"""What is said where a foreign function is not offered."""

from acidmpi.errors import ConfigError


class UnsupportedError(ConfigError, NotImplementedError):
    """A function or an option of the foreign API that has no counterpart here."""

    def __init__(self, what: str, cure: str) -> None:
        super().__init__(f"{what} is not offered by acidmpi.compat; {cure}")
        self.what = what
        self.cure = cure

    def __reduce__(self) -> tuple[type["UnsupportedError"], tuple[str, str]]:
        return UnsupportedError, (self.what, self.cure)
