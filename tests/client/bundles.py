"""App bundles for tests: what an honest, a broken and a malicious coordinator could send."""

from __future__ import annotations

import io
import zipfile

PROJECT = '[tool.flwr.app.components]\nclientapp = "client.app:app"\nserverapp = "server.app:app"\n'

# An app that trains nothing: it answers with what it was sent, plus whatever `extra` does to its answer.
APP = """
from flwr.app import ArrayRecord, Array, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message, context):
    sent = message.content
    terms = dict(sent.config_records["terms"])
    terms.pop("client_config")
    content = RecordDict({
        "adapter": ArrayRecord(dict(sent.array_records["adapter"])),
        "terms": ConfigRecord(terms | {"weight": 2.0}),
        "metrics": MetricRecord({"loss": 0.5}),
    })
    EXTRA
    return Message(content, reply_to=message)
"""


def bundle(extra: str = "pass", *, top: str = "", files: dict[str, str] | None = None) -> bytes:
    """The bytes of a bundle whose app does `extra` before it answers, and `top` when it is loaded."""
    app = APP.replace("EXTRA", extra.replace("\n", "\n    "))
    named = {"pyproject.toml": PROJECT, "client/__init__.py": "", "client/app.py": top + app} | (files or {})
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in sorted(named.items()):
            archive.writestr(zipfile.ZipInfo(name), content)
    return stream.getvalue()
