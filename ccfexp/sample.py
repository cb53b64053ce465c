"""Draw pictures: ``python -m ccfexp.sample --identity PHOTO --expression PHOTO --adapter DIR --out FILE``.

With folders in place of files every identity is drawn with every expression, in the order of their names, and a
``manifest.csv`` in the output folder says what each picture was made from. A picture that is already there is not drawn
again, so the same command goes on where it stopped. Every picture carries a note that it is synthetic.
"""

import argparse
import csv
import hashlib
import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, PngImagePlugin
from torch import Tensor

from ccfexp._io import atomic_write_bytes, atomic_write_text
from ccfexp.checkpoint import attach_saved_adapter
from ccfexp.data.files import BadFileError, decode_image
from ccfexp.errors import CCFExpError, ConfigError
from ccfexp.model import CCFExp
from ccfexp.sampling import SamplingConfig, sample

_IMAGES = (".png", ".jpg", ".jpeg")
_COLUMNS = (
    "file",
    "identity",
    "expression",
    "seed",
    "base_sha256",
    "adapter_sha256",
    "sampler",
    "steps",
    "eta",
    "guidance",
)
_NOTE = "synthetic: drawn by CCFExp, not a photograph"
_CHUNK = 64  # pictures between two writes


@dataclass(frozen=True)
class Order:
    """One picture to draw: names are those of the files that it is made from, without their folders."""

    identity: Path
    expression: Path
    out: Path
    seed: int


def draw(model: CCFExp, orders: Sequence[Order], config: SamplingConfig, threads: int = 1) -> Iterator[Order]:
    """Draw and write every picture; yields each order once its file is on the disk.

    Args:
        model: base with or without an adapter.
        orders: what to draw; the picture of an order depends on its own seed and photographs alone.
        config: sampler and steps.
        threads: of every batch.

    Raises:
        ConfigError: photographs that cannot be used, all of them at once, before anything is drawn.
    """
    photographs = _read_all(model, orders)
    for start in range(0, len(orders), _CHUNK):
        part = orders[start : start + _CHUNK]
        people = torch.stack([photographs[order.identity] for order in part])
        shown = torch.stack([photographs[order.expression] for order in part])
        with torch.no_grad():
            identity = model.encoders.identity_features(people.to(model.device))
            expression = model.encoders.expression_features(shown.to(model.device))
            resting = model.encoders.expression_features(people.to(model.device)) if config.guidance != 1 else None
        seeds = [order.seed for order in part]
        pictures = sample(model, identity, expression, config, seed=0, threads=threads, resting=resting, seeds=seeds)
        for order, picture in zip(part, pictures, strict=True):
            atomic_write_bytes(order.out, _png(picture))
            yield order


def _read_all(model: CCFExp, orders: Sequence[Order]) -> dict[Path, Tensor]:
    """Every photograph once, in [-1, 1]."""
    size = model.config.unet.image_size
    photographs: dict[Path, Tensor] = {}
    problems: list[str] = []
    paths = sorted({path for order in orders for path in (order.identity, order.expression)})
    for number, path in enumerate(paths, start=1):
        try:
            pixels = decode_image(path.read_bytes(), size)
        except (BadFileError, OSError) as error:
            reason = error if isinstance(error, BadFileError) else "the file cannot be read"
            problems.append(f"photograph {number}: {reason}")
        else:
            photographs[path] = torch.from_numpy(pixels).permute(2, 0, 1).float() / 127.5 - 1
    if problems:
        raise ConfigError(
            f"{len(problems)} photographs (counted in the order of their names) are no aligned face crops of {size} x "
            f"{size} pixels; prepare them first:\n  " + "\n  ".join(problems)
        )
    return photographs


def _png(picture_3HW: Tensor) -> bytes:
    pixels = ((picture_3HW.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0)
    note, data = PngImagePlugin.PngInfo(), io.BytesIO()
    note.add_text("Comment", _NOTE)
    Image.fromarray(np.ascontiguousarray(pixels.numpy())).save(data, "PNG", pnginfo=note)
    return data.getvalue()


def orders_of(identity: Path, expression: Path, out: Path, seed: int) -> list[Order]:
    """One order for two files; for folders every identity with every expression, in the order of their names.

    A picture's seed follows from ``seed`` and the two names, so that it stays the same when other files come or go.

    Raises:
        ConfigError: a path does not exist, or a folder holds no pictures.
    """
    people, shown = _pictures(identity, "identity"), _pictures(expression, "expression")
    if not identity.is_dir() and not expression.is_dir():
        return [Order(identity, expression, out, seed)]
    return [
        Order(person, photo, out / f"{person.stem}__{photo.stem}.png", _seed(seed, person.name, photo.name))
        for person in people
        for photo in shown
    ]


def _seed(seed: int, identity: str, expression: str) -> int:
    digest = hashlib.sha256(f"{seed}/{identity}/{expression}".encode()).digest()
    return int.from_bytes(digest[:6], "little")


def _pictures(path: Path, name: str) -> list[Path]:
    if path.is_dir():
        found = sorted(child for child in path.iterdir() if child.suffix.lower() in _IMAGES)
        if not found:
            raise ConfigError(f"the folder given as --{name} holds no {', '.join(_IMAGES)} files; give another")
        stems = [child.stem for child in found]
        if len(set(stems)) != len(stems):
            raise ConfigError(f"the folder given as --{name} holds files that differ in their ending alone; rename one")
        return found
    if not path.is_file():
        raise ConfigError(f"what is given as --{name} does not exist; give a picture or a folder of pictures")
    return [path]


def _write_manifest(folder: Path, orders: Sequence[Order], model: CCFExp, adapter: str, config: SamplingConfig) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for order in orders:
        made = (model.base_sha256, adapter, config.sampler, config.steps, config.eta, config.guidance)
        writer.writerow((order.out.name, order.identity.name, order.expression.name, order.seed, *made))
    atomic_write_text(folder / "manifest.csv", text.getvalue())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ccfexp.sample", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--identity", type=Path, required=True, help="photograph of the person, or a folder of them")
    parser.add_argument("--expression", type=Path, required=True, help="photograph of the expression, or a folder")
    parser.add_argument("--out", type=Path, required=True, help="PNG file, or a folder where folders were given")
    parser.add_argument("--adapter", type=Path, help="folder of an adapter as a run writes it; without: the base alone")
    parser.add_argument("--base", default="phantom-base", help="shipped base, or model.safetensors of an import")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sampler", choices=("ddim", "dpm"), default="dpm")
    parser.add_argument("--steps", type=int, default=8, help="network evaluations a picture (published: ddim, 50)")
    parser.add_argument("--eta", type=float, default=0.0, help="noise that ddim adds on the way (published: 1)")
    parser.add_argument("--guidance", type=float, default=1.0, help="above 1 the expression is shown more clearly")
    parser.add_argument("--threads", type=int, default=1)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    chosen = _parser().parse_args(arguments)
    try:
        config = SamplingConfig(chosen.steps, chosen.eta, chosen.sampler, chosen.guidance)
        orders = orders_of(chosen.identity, chosen.expression, chosen.out, chosen.seed)
        model = CCFExp.from_base(chosen.base)
        adapter = "" if chosen.adapter is None else attach_saved_adapter(model, chosen.adapter)
        many = chosen.identity.is_dir() or chosen.expression.is_dir()
        wanted = [order for order in orders if not (many and order.out.is_file())]
        if len(wanted) < len(orders):
            print(f"{len(orders) - len(wanted)} of {len(orders)} pictures are there already", file=sys.stderr)
        for done, _ in enumerate(draw(model, wanted, config, chosen.threads), start=1):
            if done % _CHUNK == 0 or done == len(wanted):
                print(f"{done} of {len(wanted)} pictures drawn", file=sys.stderr)
        if many:
            _write_manifest(chosen.out, orders, model, adapter, config)
    except CCFExpError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(
            f"error: the output cannot be written ({error.strerror}); free space or give another --out", file=sys.stderr
        )
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
