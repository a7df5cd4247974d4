"""What interceptors need to know of a method's handler."""

from typing import Any

import grpc


def shape_of(handler: Any) -> tuple[Any, Any]:
    """What makes a handler of the same shape, and the behaviour of this one."""
    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[handler.request_streaming, handler.response_streaming]
    return make, getattr(handler, make.__name__.removesuffix("_rpc_method_handler"))
