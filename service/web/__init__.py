"""The sketchpad: one page to draw on, and the bridge that carries its messages to the gRPC service.

The page speaks the contract itself, as the JSON form of its messages; the bridge turns JSON into protobuf and back, and
knows nothing of searching. Needs the extra `web`, so import it only when a page is asked for.
"""
