"""The Python client of those who run a service."""

from collections.abc import Callable
from typing import Any, Final, Self

import grpc

from mgrl.v1 import admin_pb2, admin_pb2_grpc
from service.calls import CHANNEL_OPTIONS
from service.config import DEFAULT_ADDRESS
from service.credentials import NO_CREDENTIALS, Credentials
from service.errors import error_from_rpc

_WHOLE_S: Final = 3600.0
"""For calls that read a whole gallery."""


class AdminClient:
    """Asks one service, with a key of the role `admin` where it asks for keys. Answers are the contract's messages.

    Args:
        target: HOST:PORT.
        timeout_s: for calls that read no whole gallery; the others may take an hour.
        credentials: for a service that asks for a key, or that encrypts.

    Example:
        with AdminClient("127.0.0.1:50051") as admin:
            print(admin.backup("staff").backup)
    """

    def __init__(
        self, target: str = DEFAULT_ADDRESS, *, timeout_s: float = 30.0, credentials: Credentials = NO_CREDENTIALS
    ) -> None:
        self._target = target
        self._timeout_s = timeout_s
        self._metadata = credentials.metadata
        self._channel = credentials.channel(target, CHANNEL_OPTIONS, grpc.insecure_channel, grpc.secure_channel)
        self._stub = admin_pb2_grpc.AdminServiceStub(self._channel)

    def models(self) -> list[admin_pb2.ModelInfo]:
        """The models that are loaded, by hash.

        Raises:
            ServiceError: the service cannot answer.
            ForbiddenError: the key has not the role `admin`. So do the other calls.
        """
        response: admin_pb2.ListModelsResponse = self._asked(self._stub.ListModels, admin_pb2.ListModelsRequest())
        return list(response.models)

    def verify(self, gallery: str = "") -> admin_pb2.VerifyGalleryResponse:
        """What is wrong with a gallery, every file of it read.

        Raises:
            UnknownGalleryError: no gallery of that name.
        """
        request = admin_pb2.VerifyGalleryRequest(gallery=gallery)
        answer: admin_pb2.VerifyGalleryResponse = self._asked(self._stub.VerifyGallery, request, _WHOLE_S)
        return answer

    def backup(self, gallery: str = "") -> admin_pb2.BackupGalleryResponse:
        """Copy a gallery into the service's folder of backups.

        Raises:
            UnknownGalleryError: no gallery of that name.
            ConfigError: the service has no such folder.
            GalleryError: the gallery is damaged, or the disk refuses.
        """
        request = admin_pb2.BackupGalleryRequest(gallery=gallery)
        answer: admin_pb2.BackupGalleryResponse = self._asked(self._stub.BackupGallery, request, _WHOLE_S)
        return answer

    def reload(self) -> None:
        """Have the settings read again.

        Raises:
            ConfigError: they cannot be used, and stay as they were.
        """
        self._asked(self._stub.ReloadSettings, admin_pb2.ReloadSettingsRequest())

    def drain(self) -> None:
        """Have the service stop once its drawings are finished.

        Raises:
            ServiceError: it is stopping already.
        """
        self._asked(self._stub.Drain, admin_pb2.DrainRequest())

    def close(self) -> None:
        """End the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _asked(self, method: Callable[..., Any], request: Any, timeout_s: float | None = None) -> Any:
        try:
            return method(request, timeout=timeout_s or self._timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise error_from_rpc(error, self._target) from error
