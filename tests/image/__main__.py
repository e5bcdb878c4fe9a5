"""`make image`: the image wholepod:VERSION in the engine, and dist/wholepod-VERSION.cdx.json beside it."""

import os

import click

from scheduler import __version__
from tests.cluster.__main__ import UNUSABLE, err, errors_shown, out
from tests.cluster.progress import live_report
from tests.image import base, build


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--base",
    "on",
    default=lambda: os.environ.get("BASE") or base.default(),
    show_default="BASE, or the one in the Dockerfile",
    help="The image to build on; if it can't be had, one is made of Debian's packages.",
)
def main(on: str) -> None:
    """Build Wholepod's image into the Docker engine."""
    with errors_shown(UNUSABLE), live_report(err) as report:
        image = build.build(on=on, report=report)
        bill = base.ROOT / "dist" / f"wholepod-{__version__}.cdx.json"
        bill.parent.mkdir(exist_ok=True)
        bill.write_text(build.bill_of_materials(image))
    out.print(f"[bold]{image.name}[/] {image.size_bytes / 1e6:.0f} MB {image.identity}", soft_wrap=True)
    out.print(f"  base: {image.base}", soft_wrap=True)
    out.print(f"  what is in it: {bill.relative_to(base.ROOT)}")
    out.print(f"  own layer: {image.layers[-1]}", soft_wrap=True)


if __name__ == "__main__":
    main(prog_name="python -m tests.image")
