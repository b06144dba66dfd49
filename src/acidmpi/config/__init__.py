"""Options of the commands: frozen dataclasses, command lines and TOML files."""
