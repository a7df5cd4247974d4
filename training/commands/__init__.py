"""The subcommands of `mgrl` that train and measure; loaded by `service.cli` on call."""
