"""The product: the gRPC service, its client and the `mgrl` command."""
