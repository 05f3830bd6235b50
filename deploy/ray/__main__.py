"""`python -m deploy.ray SOURCE OUT` inside a Ray cluster: every image of a source, on every machine there is.

ray job submit --working-dir . -- python -m deploy.ray s3://bucket/photographs s3://bucket/predictions
"""

import os
import sys
import time
from typing import Any

import click
import ray
from numpy.typing import NDArray
from ray.data import ActorPoolStrategy

from deploy.ray.plan import Ask, Plan, make_plan, name_part
from deploy.ray.shards import ShardScorer, Shift
from deploy.ray.storage import StoreFolder
from service.errors import ServiceError
from service.offline.model import find_version
from service.protocols.options import parse_options
from service.settings import BadSettings, load_settings

NOT_STARTED = 2


class ScoreShards:
    """What Ray Data calls: one actor with its own engine, numbers of shards in, a row each out."""

    def __init__(self, shift: Shift) -> None:
        self._scorer = ShardScorer(shift)

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, list[int]]:
        """batch: `shard`, int64 [N]; returns shard, images and failed, [N] each."""
        parts = [self._scorer.score(int(shard)) for shard in batch["shard"]]
        return {
            "shard": [part.shard for part in parts],
            "images": [part.images for part in parts],
            "failed": [part.failed for part in parts],
        }


@click.command("deploy.ray")
@click.argument("source")
@click.argument("out")
@click.option("--model", default="", help="name or name@version; the default model where absent")
@click.option("--model-repository", help="directories that every machine has, separated by colons")
@click.option("--tta", help="view policy; the card's default where absent")
@click.option("--top-k", default=5, show_default=True, help="how many classes")
@click.option("--precision", type=click.Choice(["fp32", "int8"]), help="fp32 where absent")
@click.option("--shard-images", default=4096, show_default=True, help="images a shard, at least")
@click.option("--image-column", default="image", show_default=True, help="of a Parquet source")
@click.option("--id-column", default="id", show_default=True, help="of a Parquet source")
@click.option("--cpus", default=1, show_default=True, help="cores of one actor, and threads of its engine")
@click.option("--actors", type=click.IntRange(1), help="most actors at once; as many as fit where absent")
def main(source: str, out: str, cpus: int, actors: int | None, **given: Any) -> None:
    """Score every image of SOURCE, a folder or prefix with images or Parquet files, into Parquet under OUT.

    Run again with the same OUT it scores what is missing. Exit code 0: every image has its row, be it an
    error; 2: nothing was begun; any other: run it again.
    """
    try:
        repository = given["model_repository"]
        settings = {"model_repository": repository} if repository else {}
        out = out if "://" in out else os.path.abspath(out)
        folder = StoreFolder(out)
        plan = make_plan(_make_ask(source, settings, given), folder)
    except (ServiceError, BadSettings, OSError, ValueError) as err:
        click.echo(str(err), err=True)
        sys.exit(NOT_STARTED)
    run(plan, folder, Shift(out, settings, cpus), actors)


def run(plan: Plan, folder: StoreFolder, shift: Shift, actors: int | None) -> None:
    """Score the shards whose part is missing."""
    names = folder.list_names()
    missing = [{"shard": shard} for shard in range(plan.shards) if name_part(shard) not in names]
    click.echo(f"{plan.shards} shards, {plan.shards - len(missing)} of them there already")
    images = failed = 0
    started = time.monotonic()
    if missing:
        shards = ray.data.from_items(missing, override_num_blocks=len(missing))
        scored = shards.map_batches(
            ScoreShards,
            fn_constructor_args=(shift,),
            batch_size=1,
            compute=ActorPoolStrategy(min_size=1, max_size=actors),
            num_cpus=shift.threads,
        )
        for done, part in enumerate(scored.iter_rows(), 1):
            images, failed = images + part["images"], failed + part["failed"]
            rate = images / (time.monotonic() - started)
            click.echo(f"{done} of {len(missing)} shards, {images:,} images, {rate:,.0f} images/s")
    folder.remove_partials()
    click.echo(f"done: {images:,} images now, {failed:,} of them failed; {shift.out}")


def _make_ask(source: str, settings: dict[str, str], given: dict[str, Any]) -> Ask:
    source = source if "://" in source else os.path.abspath(source)
    asked = {name: str(given[name]) for name in ("model", "tta", "top_k", "precision") if given[name]}
    options = parse_options(asked)
    version = find_version(load_settings(settings), options.model)
    return Ask(
        source, version.digest, options, given["shard_images"], given["image_column"], given["id_column"]
    )


if __name__ == "__main__":
    main()
