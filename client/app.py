"""The ClientApp: Flower's entry to a hospital. What a site says is an update, its name, or an error without details."""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING, Protocol

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from ccfexp.errors import CCFExpError, WireError
from strategies import wire

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

REFUSED = 101  # the message from the coordinator cannot be used; the reason is sent
FAILED = 102  # something went wrong at the site; only the kind of error is sent


class RequestRefusedError(Exception):
    """The coordinator's message cannot be used; the text names what it sent and nothing of the site."""


class Trainer(Protocol):
    """What the app needs of a hospital."""

    def site(self, context: Context) -> str:
        """The public name of the site that this node speaks for."""
        ...

    def hello(self, context: Context) -> wire.SiteHello:
        """Its name, and the largest rank that it can train."""
        ...

    def train(self, site: str, message: wire.AdapterMessage) -> wire.AdapterUpdate:
        """Train one round. Raises RequestRefusedError if the message does not fit this site's model or release."""
        ...


def make_app(trainer: Callable[[], Trainer]) -> ClientApp:
    """A ClientApp whose hospital is made by `trainer` at the first message, not before.

    The app stays small when it is sent to another process: it holds the function, not what the function makes.
    """
    app = ClientApp()

    @app.query()
    def hello(message: Message, context: Context) -> Message:
        def answer() -> Message:
            return Message(wire.encode_hello(trainer().hello(context)), reply_to=message)

        return _guarded(message, answer)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        def answer() -> Message:
            hospital = trainer()
            try:
                request = wire.decode_message(message.content)
            except WireError as error:
                raise RequestRefusedError(str(error)) from error
            update = hospital.train(hospital.site(context), request)
            return Message(wire.encode_update(update), reply_to=message)

        return _guarded(message, answer)

    return app


def _guarded(message: Message, answer: Callable[[], Message]) -> Message:
    """The answer, or an error reply that holds no path, no identifier and no value of the site."""
    try:
        return answer()
    except RequestRefusedError as error:
        log.error("the coordinator's message is refused: %s", error)  # noqa: TRY400 (no traceback: see below)
        return Message(Error(REFUSED, str(error)), reply_to=message)
    except Exception as error:  # noqa: BLE001 (the border: whatever fails inside, only its kind may leave)
        # Where it happened. Our own errors name neither files nor patients and tell the operator which rows or values
        # to mend; the text of any other may, so it stays out of the log.
        where = traceback.extract_tb(error.__traceback__)[-1]
        kind = type(error).__name__
        text = f": {error}" if isinstance(error, CCFExpError) else ""
        log.error("training failed: %s in %s, line %s%s", kind, where.name, where.lineno, text)  # noqa: TRY400
        return Message(Error(FAILED, f"{kind} at the site; its operator finds more in the log there"), reply_to=message)


def _installed_hospital() -> Trainer:
    """The hospital that this machine is set up for."""
    from client.workbench import from_environment

    return from_environment()


app = make_app(_installed_hospital)
