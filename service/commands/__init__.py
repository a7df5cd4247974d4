"""The subcommands of `mgrl`, one file each: `add_arguments(parser)` and `run(args) -> exit status`."""
