"""The commands that make a cluster: ``freehold start | drain | stop``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from freehold.config import Config
from freehold.errors import FreeholdError

if TYPE_CHECKING:
    from freehold.proc.standing import Record

HEAD = "Start a cluster: its head, and a node here."
ADDRESS = "Join the cluster whose head is there."
TOKEN = "The cluster's token; others see a command line, so rather set FREEHOLD_TOKEN."
TOKEN_FILE = "A file with the token that only you may read (or FREEHOLD_TOKEN_FILE)."
HOST = "Where to listen: a numeric address of this machine (the one that leads to the others)."
PORT = "TCP port: the head's (7337), or with --address the node's (any)."
STORE = "SQLite file of the head's tables; a head started with it again goes on with them."
CPUS = "CPUs that the node offers (those that there are)."
RESOURCES = 'Custom resources, as in {"gpu": 2}.'
LABELS = 'Labels to select the node by, as in {"zone": "a"}.'
NO_TLS = "Do not encrypt what machines say to each other; they still prove the secret."
BLOCK = "Stay in the foreground, and stop everything that was started on Ctrl-C or SIGTERM."


class JsonMap(click.ParamType[dict[str, Any]]):
    """An option whose text is a JSON object."""

    name = "json"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[str, Any]:
        """The object."""
        try:
            found = json.loads(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(f"{value!r} is not JSON: {error}", param, ctx)
        if not isinstance(found, dict):
            self.fail(f"{value!r} is no JSON object", param, ctx)
        return found


@click.command()
@click.option("--head", is_flag=True, help=HEAD)
@click.option("--address", metavar="HOST:PORT", help=ADDRESS)
@click.option("--token", metavar="TOKEN", help=TOKEN)
@click.option("--token-file", type=click.Path(dir_okay=False), help=TOKEN_FILE)
@click.option("--host", metavar="HOST", help=HOST)
@click.option("--port", type=click.IntRange(1, 65_535), help=PORT)
@click.option("--store", type=click.Path(dir_okay=False, resolve_path=True), help=STORE)
@click.option("--num-cpus", type=click.FloatRange(0), help=CPUS)
@click.option("--resources", type=JsonMap(), metavar="JSON", help=RESOURCES)
@click.option("--labels", type=JsonMap(), metavar="JSON", help=LABELS)
@click.option("--no-tls", is_flag=True, help=NO_TLS)
@click.option("--block", is_flag=True, help=BLOCK)
def start(head: bool, address: str | None, block: bool, **options: Any) -> None:
    """Start a cluster on this machine (--head), or join one (--address).

    It returns when the node is a member, and leaves it running: see `freehold stop`.
    """
    if head == bool(address):
        raise click.UsageError("give either --head or --address HOST:PORT")
    for name in () if head else ("store", "no_tls"):
        if options[name]:
            raise click.UsageError(f"--{name.replace('_', '-')} goes with --head")
    labels = options["labels"] or {}
    if not all(isinstance(value, str) for value in labels.values()):
        raise click.UsageError("labels are texts")
    try:
        given = {name: options[name] for name in ("num_cpus", "resources")}
        config = Config.make(given)._replace(address=None, token=None)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    try:
        if head:
            records = _start_head(options, config, labels)
        else:
            assert address is not None
            records = _join(address, options, config, labels)
    except FreeholdError as error:
        raise click.ClickException(str(error)) from None
    if block:
        _stay(records)


def _start_head(options: dict[str, Any], config: Config, labels: dict[str, str]) -> list[Record]:
    from freehold.proc import standing

    store = options["store"] or ""
    host = standing.own_host(options["host"])
    word = standing.head_token(
        options["token"], options["token_file"], store, not options["no_tls"]
    )
    head = standing.start_head(host, options["port"] or standing.PORT, store, word)
    try:
        node = standing.node_here(head.address)  # if the head is back
        new = node is None
        node = node or standing.start_node(head.address, word, host, 0, config, labels)
    except BaseException:
        standing.end([head], force=True)
        raise
    kept = f"keeps its tables in {store}" if store else "takes its tables with it (--store)"
    click.echo(f"The cluster's head listens at {head.address}, and {kept}.")
    was = "is" if new else "was and is"
    click.echo(f"This machine {was} node {node.node}, at {node.address}.\n")
    click.echo("Another machine joins with")
    click.echo(f"  freehold start --address {head.address} --token {word.text}")
    click.echo("and a program here uses the cluster with")
    click.echo('  freehold.init(address="auto")')
    return [node, head]


def _join(
    address: str, options: dict[str, Any], config: Config, labels: dict[str, str]
) -> list[Record]:
    from freehold.proc import reach, standing, token

    address = reach.normal(address)
    word = token.demand(options["token"], options["token_file"], address)
    host = standing.own_host(options["host"], toward=address)
    node = standing.start_node(address, word, host, options["port"] or 0, config, labels)
    click.echo(f"This machine is node {node.node} of the cluster at {address}.")
    return [node]


def _stay(records: list[Record]) -> None:
    """Wait until one of the daemons ends, or this process is told to; then stop them all."""
    import signal

    from freehold.proc import standing

    def on_signal(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, on_signal)
    try:
        ended = standing.wait_for_any(records)
    except KeyboardInterrupt:
        standing.end(records)
        return
    standing.end(records)
    raise click.ClickException(f"the {ended.role} daemon (pid {ended.pid}) has ended by itself")


@click.command()
@click.option("--force", is_flag=True, help="Kill at once, without a word to the cluster.")
def stop(force: bool) -> None:
    """Stop every daemon of yours on this machine that `freehold start` has started."""
    from freehold.proc import standing

    try:
        records = standing.stop(force)
    except FreeholdError as error:
        raise click.ClickException(str(error)) from None
    for record in records:
        click.echo(f"stopped: {record.role} at {record.address} (pid {record.pid})")
    if not records:
        click.echo("nothing runs here that `freehold start` has started")


@click.command()
@click.argument("node")
@click.option("--address", metavar="HOST:PORT", help="The cluster's head, if not this machine's.")
@click.option("--token", metavar="TOKEN", help=TOKEN)
@click.option("--token-file", type=click.Path(dir_okay=False), help=TOKEN_FILE)
def drain(node: str, address: str | None, token: str | None, token_file: str | None) -> None:
    """Let a node take no more work, and leave when it has none.

    NODE is its id, or the beginning of it: see `freehold status`.
    """
    from freehold.proc import standing, tool

    try:
        address = standing.cluster_of(address)
        id = tool.retire(address, standing.demand(token, token_file, address), node)
    except FreeholdError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"node {id} drains, and leaves when it is empty")
