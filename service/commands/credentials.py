"""The options of every command that calls a service: whom to trust, and who it is that calls."""

import argparse
import os
from pathlib import Path

from indexer.errors import ConfigError
from service.config_access import Secret
from service.credentials import Credentials


def add_credentials(parser: argparse.ArgumentParser) -> None:
    """Declare them. A key itself is never an argument: every user of a machine can read those."""
    group = parser.add_argument_group("a service that encrypts, or asks who calls")
    group.add_argument("--ca", metavar="FILE", type=Path, help="root certificates of the service (PEM)")
    group.add_argument("--certificate", metavar="FILE", type=Path, help="a certificate of your own (PEM)")
    group.add_argument("--certificate-key", metavar="FILE", type=Path, help="its private key (PEM)")
    group.add_argument("--key-file", metavar="FILE", type=Path, help="holds an API key (default: MGRL_API_KEY)")
    group.add_argument("--insecure", action="store_true", help="send the key unencrypted, whatever the address")


def credentials_of(arguments: argparse.Namespace) -> Credentials:
    """What was given.

    Raises:
        ConfigError: the key's file cannot be read.
    """
    token = os.environ.get("MGRL_API_KEY", "")
    if arguments.key_file is not None:
        try:
            token = arguments.key_file.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the key file {arguments.key_file.name} cannot be read") from error
    if token and not (token.isascii() and token.isprintable()):
        raise ConfigError("an API key is one line of letters, digits, _ and -; this one is not")
    return Credentials(
        arguments.ca,
        arguments.certificate,
        arguments.certificate_key,
        Secret(token) if token else None,
        arguments.insecure,
    )
