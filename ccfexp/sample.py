"""Draw pictures: ``python -m ccfexp.sample --identity PHOTO --expression PHOTO --adapter DIR --out FILE``.

With folders in place of files every identity is drawn with every expression, in the order of their names. What the
output folder is drawn from is written down first (``ccfexp.sample_folder``); a picture that is already there is not
drawn again, so the same command goes on where it stopped, and another one is refused. Every picture carries a note that
it is synthetic.
"""

import argparse
import hashlib
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, PngImagePlugin
from torch import Tensor

from ccfexp._io import atomic_write_bytes
from ccfexp.checkpoint import attach_saved_adapter
from ccfexp.data.files import BadFileError, decode_image
from ccfexp.errors import CCFExpError, ConfigError
from ccfexp.model import CCFExp
from ccfexp.sample_folder import Order, Photograph, PictureFolder, Settings
from ccfexp.sampling import SamplingConfig, sample

_IMAGES = (".png", ".jpg", ".jpeg")
_NOTE = "synthetic: drawn by CCFExp, not a photograph"
_CHUNK = 64  # pictures that are drawn before they are written


def draw(model: CCFExp, orders: Sequence[Order], config: SamplingConfig, threads: int = 1) -> Iterator[Order]:
    """Draw and write every picture; yields each order once its file is on the disk.

    Args:
        model: base with or without an adapter.
        orders: what to draw; the picture of an order depends on its own seed and photographs alone.
        config: sampler and steps.
        threads: of every batch.
    """
    for start in range(0, len(orders), _CHUNK):
        part = orders[start : start + _CHUNK]
        people = torch.stack([order.identity.x_3HW for order in part])
        shown = torch.stack([order.expression.x_3HW for order in part])
        with torch.no_grad():
            identity = model.encoders.identity_features(people.to(model.device))
            expression = model.encoders.expression_features(shown.to(model.device))
            resting = model.encoders.expression_features(people.to(model.device)) if config.guidance != 1 else None
        seeds = [order.seed for order in part]
        pictures = sample(model, identity, expression, config, seed=0, threads=threads, resting=resting, seeds=seeds)
        for order, picture in zip(part, pictures, strict=True):
            atomic_write_bytes(order.out, _png(picture))
            yield order


def read_photographs(paths: Sequence[Path], size: int) -> list[Photograph]:
    """Every photograph, in the order given.

    Raises:
        ConfigError: photographs that cannot be used, all of them at once.
    """
    photographs: list[Photograph] = []
    problems: list[str] = []
    for number, path in enumerate(paths, start=1):
        try:
            data = path.read_bytes()
            x_3HW = torch.from_numpy(decode_image(data, size)).permute(2, 0, 1).float() / 127.5 - 1
        except (BadFileError, OSError) as error:
            reason = error if isinstance(error, BadFileError) else "the file cannot be read"
            problems.append(f"photograph {number}: {reason}")
        else:
            photographs.append(Photograph(path.name, hashlib.sha256(data).hexdigest(), x_3HW))
    if problems:
        raise ConfigError(
            f"{len(problems)} photographs (counted in the order given: identities, then expressions, by name) are no "
            f"aligned face crops of {size} x {size} pixels, the size of the base; prepare them first (phantoms: "
            f"python -m ccfexp.data.phantom --size {size}):\n  " + "\n  ".join(problems)
        )
    return photographs


def _png(picture_3HW: Tensor) -> bytes:
    pixels = ((picture_3HW.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0)
    note, data = PngImagePlugin.PngInfo(), io.BytesIO()
    note.add_text("Comment", _NOTE)
    Image.fromarray(np.ascontiguousarray(pixels.numpy())).save(data, "PNG", pnginfo=note)
    return data.getvalue()


def pictures_of(path: Path, name: str) -> list[Path]:
    """A picture, or those of a folder in the order of their names.

    Raises:
        ConfigError: the path does not exist, or the folder holds no pictures.
    """
    if path.is_dir():
        found = sorted(child for child in path.iterdir() if child.suffix.lower() in _IMAGES)
        if not found:
            raise ConfigError(f"the folder given as --{name} holds no {', '.join(_IMAGES)} files; give another")
        return found
    if not path.is_file():
        raise ConfigError(f"what is given as --{name} does not exist; give a picture or a folder of pictures")
    return [path]


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
    """Command line; returns the exit code (0 done, 2 refused, 130 interrupted)."""
    chosen = _parser().parse_args(arguments)
    try:
        _run(chosen)
    except CCFExpError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(
            f"error: the output cannot be written ({error.strerror}); free space or give another --out", file=sys.stderr
        )
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on with the pictures that are missing", file=sys.stderr)
        return 130
    return 0


def _run(chosen: argparse.Namespace) -> None:
    if not 0 <= chosen.seed < 2**63:
        raise ConfigError(f"--seed={chosen.seed} must be 0 to 2^63 - 1; choose another")
    config = SamplingConfig(chosen.steps, chosen.eta, chosen.sampler, chosen.guidance)
    people, shown = pictures_of(chosen.identity, "identity"), pictures_of(chosen.expression, "expression")
    model = CCFExp.from_base(chosen.base)
    model.diffusion.timesteps(config.steps)  # refuses too many before anything is written
    adapter = "" if chosen.adapter is None else attach_saved_adapter(model, chosen.adapter)
    photographs = read_photographs([*people, *shown], model.config.unet.image_size)
    if chosen.identity.is_dir() or chosen.expression.is_dir():
        settings = Settings(model.base_sha256, adapter, config, chosen.seed)
        folder = PictureFolder(chosen.out, photographs[: len(people)], photographs[len(people) :], settings)
        folder.claim()
        orders = [order for order in folder.orders if not order.out.is_file()]
        if len(orders) < len(folder.orders):
            there, of = len(folder.orders) - len(orders), len(folder.orders)
            print(f"{there} of {of} pictures are there already", file=sys.stderr)
    else:
        orders = [Order(photographs[0], photographs[1], chosen.out, chosen.seed)]
    for done, _ in enumerate(draw(model, orders, config, chosen.threads), start=1):
        if done % _CHUNK == 0 or done == len(orders):
            print(f"{done} of {len(orders)} pictures drawn", file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())
