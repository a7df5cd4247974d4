"""The caller of the call at hand, known to whatever runs inside it.

A context variable, so that what lists or finds galleries need not be told by everybody who asks, and nobody can forget.
Outside of a call there is no caller, and nothing is hidden.
"""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from service.config_access import ROLES, LimitsConfig

if TYPE_CHECKING:
    from service.auth.limits import Limiter


_NO_LIMITS: Final = LimitsConfig()


@dataclass(frozen=True)
class Caller:
    """Somebody who calls.

    Args:
        name: of the key, the token's `sub`, or the certificate's common name; what the audit log says.
        kind: "key", "token", "certificate", or "anyone" where nobody is asked.
        roles: what the caller may do.
        galleries: where; None is everywhere.
        limits: how much of it.
    """

    name: str
    kind: str
    roles: frozenset[str]
    galleries: frozenset[str] | None = None
    limits: LimitsConfig = _NO_LIMITS

    def may_use(self, gallery: str) -> bool:
        """Whether a gallery is one of the caller's."""
        return self.galleries is None or gallery in self.galleries

    def __str__(self) -> str:
        return self.kind if self.kind == "anyone" else f"{self.kind} {self.name}"


@dataclass(eq=False)
class Call:
    """A call in progress.

    Args:
        caller: who makes it.
        role: what it takes.
        limiter: counts its strokes.
        gallery: the one that it was given last.
        purpose: what it is for.
    """

    caller: Caller
    role: str
    limiter: "Limiter"
    gallery: str = ""
    purpose: str = ""

    def take_strokes(self, strokes: int, size_bytes: int = 0) -> None:
        """Count the strokes of a message of this size.

        Raises:
            LimitError: the caller drew too many, or the message is too large.
        """
        self.limiter.check_size(self.caller, size_bytes)
        self.limiter.take_strokes(self.caller, strokes)


ANYONE: Final = Caller("", "anyone", frozenset(ROLES))

_CURRENT: Final[ContextVar[Call | None]] = ContextVar("mgrl_call", default=None)


def current_call() -> Call | None:
    """The call that this code runs in; None outside of calls, and in threads that work for one."""
    return _CURRENT.get()


def enter_call(call: Call) -> None:
    """From here on this task, which gRPC started for one call, and the tasks that it starts run in this call."""
    _CURRENT.set(call)
