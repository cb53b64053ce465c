"""The coordinator's port, looked at before anything is said: certificate, time, and whether it answers at all."""

from __future__ import annotations

import http.client
import socket
import ssl
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Literal

from cryptography import x509

if TYPE_CHECKING:
    from pathlib import Path

Level = Literal["ready", "warning", "not ready"]
_TIMEOUT_S = 10.0
_AHEAD_S, _BEHIND_S = 4.0, 240.0  # Flower refuses signatures more than 5 s from the future or 305 s old
_SOON_DAYS = 30


def examine(host: str, port: int, root_certificate: Path) -> list[tuple[str, Level, str]]:
    """The checks of the root certificate, the coordinator's own certificate, and the clock."""
    level, text = _root(root_certificate)
    found = [("root certificate", level, text)]
    if level == "not ready":
        return found
    context = ssl.create_default_context(cafile=str(root_certificate))
    connection = http.client.HTTPSConnection(host, port, timeout=_TIMEOUT_S, context=context)
    try:
        connection.request("HEAD", "/")
        answer = connection.getresponse()
        found.append(("coordinator", "ready", f"{host}:{port} answers with a certificate of this authority"))
        found.append(("clock", *_clock(answer.getheader("Date"))))
    except ssl.SSLCertVerificationError as error:
        reason = f"its certificate is refused: {error.verify_message}; ask the coordinator, do not go around it"
        found.append(("coordinator", "not ready", reason))
    except ssl.SSLError as error:
        reason = f"{host}:{port} does not speak TLS as it must ({error.reason}); is the port that of the proxy?"
        found.append(("coordinator", "not ready", reason))
    except (OSError, http.client.HTTPException) as error:
        reason = _why(error)
        text = f"{host}:{port} does not answer ({reason}); the site will go on trying for as long as it runs"
        found.append(("coordinator", "warning", text))
    finally:
        connection.close()
    return found


def _root(path: Path) -> tuple[Level, str]:
    try:
        certificates = x509.load_pem_x509_certificates(path.read_bytes())
    except OSError:
        return "not ready", f"{path.name} is missing or cannot be read; it is in the coordinator's kit"
    except ValueError:
        return "not ready", f"{path.name} is not a certificate; take the one in the coordinator's kit"
    now = datetime.now(UTC)
    ends = min(certificate.not_valid_after_utc for certificate in certificates)
    begins = max(certificate.not_valid_before_utc for certificate in certificates)
    if not begins <= now <= ends:
        return "not ready", f"valid from {begins:%Y-%m-%d} to {ends:%Y-%m-%d}; ask for a new one, or set the clock"
    level: Level = "warning" if (ends - now).days < _SOON_DAYS else "ready"
    return level, f"valid until {ends:%Y-%m-%d}"


def _clock(header: str | None) -> tuple[Level, str]:
    if header is None:
        return "warning", "the coordinator does not say its time"
    off = (datetime.now(UTC) - parsedate_to_datetime(header)).total_seconds()
    if not -_BEHIND_S < off < _AHEAD_S:
        bounds = f"-{_BEHIND_S:.0f} to +{_AHEAD_S:.0f} s"
        return "not ready", f"{off:+.0f} s against the coordinator's, allowed are {bounds}; set the clock (NTP)"
    return "ready", f"{off:+.0f} s against the coordinator's"


def _why(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, socket.gaierror):
        return "its name is not known here"
    return str(getattr(error, "strerror", "") or type(error).__name__)
