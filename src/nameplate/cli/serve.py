"""`nameplate serve`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from nameplate.cli import screen
from nameplate.cli.app import app
from nameplate.cli.options import DeviceOption, Json, RuntimeOption, TtaOption, WholePhoto, which_cars
from nameplate.defaults import DEFAULT_BUNDLE
from nameplate.errors import RuntimeUnavailableError, UsageError
from nameplate.serve.settings import ServeSettings

DEFAULTS = ServeSettings()


@app.command()
def serve(
    bundles: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME=]BUNDLE",
            help="Folders of bundles, or names of models that ship with Nameplate; NAME is what the API calls it.",
            show_default=DEFAULT_BUNDLE,
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="The address to listen on; 0.0.0.0 opens the service to the network.")
    ] = DEFAULTS.host,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port to listen on; 0 takes any free one.")
    ] = DEFAULTS.port,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes per bundle.")] = DEFAULTS.workers,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="How many processors the workers use.", show_default="all that this process may use"),
    ] = None,
    threads_of: Annotated[
        list[str] | None,
        typer.Option("--threads-of", metavar="MODEL=N", help="How many processors the workers of one model use."),
    ] = None,
    alias: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=MODEL:WEIGHT,…",
            help="A name that stands for models by weight; 'default' is for requests that name none. Repeatable.",
        ),
    ] = None,
    aliases: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Keep aliases that are changed while the service runs; it goes before --alias."
        ),
    ] = None,
    runtime: RuntimeOption = DEFAULTS.runtime,
    device: DeviceOption = "cpu",
    whole_photo: WholePhoto = False,
    tta: TtaOption = DEFAULTS.tta,
    keys: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Require an API key from this file; 'nameplate keys' writes it.")
    ] = None,
    rate: Annotated[
        str | None, typer.Option(metavar="N/PERIOD", help="Allowed requests per key or address, such as 600/minute.")
    ] = None,
    cors: Annotated[
        list[str] | None, typer.Option(metavar="ORIGIN", help="A web site whose pages may call the API; repeatable.")
    ] = None,
    allowed_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A host name that requests may address; repeatable.")
    ] = None,
    trusted_proxies: Annotated[
        str, typer.Option(metavar="ADDRESSES", help="Proxies whose X-Forwarded-For header is trusted.")
    ] = DEFAULTS.trusted_proxies,
    connections_per_address: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="How many connections of one address may await an answer or were lately given up; 0: any number.",
        ),
    ] = DEFAULTS.connections_per_address,
    feedback: Annotated[
        str | None,
        typer.Option(
            metavar="DATABASE",
            envvar="NAMEPLATE_FEEDBACK",
            help="Store users' corrections in this SQLite file or database URL.",
        ),
    ] = None,
    feedback_bytes: Annotated[
        int,
        typer.Option(
            min=1, metavar="BYTES", help="How many bytes of corrections' photos to keep; beyond that the answer is 503."
        ),
    ] = DEFAULTS.feedback_bytes,
    keep_metadata: Annotated[
        bool,
        typer.Option("--keep-metadata", help="Store corrections' photos with the place and time that they state."),
    ] = DEFAULTS.keep_metadata,
    reload_on_change: Annotated[
        bool, typer.Option("--reload-on-change", help="Reload a bundle when its files change.")
    ] = DEFAULTS.reload_on_change,
    photos: Annotated[int, typer.Option(min=1, help="How many photos one request may contain.")] = DEFAULTS.photos,
    queue: Annotated[
        int, typer.Option(min=1, help="How many photos may wait for a bundle; beyond that the answer is 503.")
    ] = DEFAULTS.queue_photos,
    queue_seconds: Annotated[
        float,
        typer.Option(
            min=0.1, help="How long a photo may be expected to wait, in seconds; beyond that the answer is 503."
        ),
    ] = DEFAULTS.queue_seconds,
    seconds: Annotated[
        float, typer.Option(min=0.1, help="The time limit of a request, in seconds.")
    ] = DEFAULTS.request_seconds,
    stop_delay: Annotated[
        float,
        typer.Option(min=0, help="How long to report 'not ready' after SIGTERM before refusing requests, in seconds."),
    ] = DEFAULTS.stop_delay,
    jobs: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Take jobs of many photos (POST /v1/jobs), and keep them in this folder."),
    ] = None,
    job_photos: Annotated[
        int, typer.Option(min=1, help="How many photos one job may contain.")
    ] = DEFAULTS.job_limits.photos,
    job_bytes: Annotated[
        int, typer.Option(min=1, metavar="BYTES", help="How many bytes all jobs may have on disk; one client half.")
    ] = DEFAULTS.job_limits.bytes_in_all,
    job_hours: Annotated[
        float, typer.Option(min=0, help="For how many hours a job is kept after its end.")
    ] = DEFAULTS.job_limits.kept_seconds / 3600,
    traces: Annotated[
        bool | None,
        typer.Option(
            "--traces/--no-traces",
            help="Send OpenTelemetry traces, set up by its OTEL_… variables (extra otel).",
            show_default="if OTEL_EXPORTER_OTLP_ENDPOINT is set",
        ),
    ] = DEFAULTS.traces,
    page: Annotated[bool, typer.Option("--page/--no-page", help="Serve the web page at /.")] = DEFAULTS.page,
    docs: Annotated[
        bool, typer.Option("--docs/--no-docs", help="Serve Swagger UI at /docs, to read and try the API.")
    ] = DEFAULTS.docs,
    json: Json = False,
) -> None:
    """Serve models over HTTP: an API and a web page. SIGTERM or Ctrl-C stops it after the last answer."""
    try:
        from nameplate.runtime.select import on_device
        from nameplate.serve.aliases import parse_alias
        from nameplate.serve.app import serve as run
    except ModuleNotFoundError as error:
        raise RuntimeUnavailableError(
            f"'nameplate serve' needs {error.name}. Install it with pip install 'nameplate[serve]'."
        ) from None
    settings = ServeSettings(
        bundles=tuple(bundles or DEFAULTS.bundles),
        host=host,
        port=port,
        workers=workers,
        threads=threads,
        threads_of=_threads_of(threads_of or ()),
        aliases=dict(map(parse_alias, alias or ())),
        aliases_file=aliases,
        runtime=on_device(runtime, device),
        tta=tta,
        cars=which_cars(whole_photo=whole_photo),
        keys=keys,
        rate=rate,
        cors=tuple(cors or ()),
        allowed_hosts=tuple(allowed_host or ()),
        trusted_proxies=trusted_proxies,
        connections_per_address=connections_per_address,
        feedback=feedback,
        feedback_bytes=feedback_bytes,
        keep_metadata=keep_metadata,
        reload_on_change=reload_on_change,
        photos=photos,
        queue_photos=queue,
        queue_seconds=queue_seconds,
        request_seconds=seconds,
        stop_delay=stop_delay,
        jobs=jobs,
        job_limits=replace(
            DEFAULTS.job_limits,
            photos=job_photos,
            bytes=min(DEFAULTS.job_limits.bytes, job_bytes // 2),
            bytes_in_all=job_bytes,
            kept_seconds=3600 * job_hours,
        ),
        traces=traces,
        page=page,
        docs=docs,
    )

    def started(address: str) -> None:
        if json:
            screen.print_json({"url": address, "models": list(settings.bundles)})
        else:
            screen.out.print(f"Serving {', '.join(settings.bundles)} at {address}")

    run(settings, started)


def _threads_of(given: Sequence[str]) -> dict[str, int]:
    """Parse `MODEL=N`.

    Raises:
        UsageError: one has another form.
    """
    found = {}
    for text in given:
        model, _, number = text.rpartition("=")
        if not model or not number.isdecimal() or int(number) < 1:
            raise UsageError(f"'{text}' is no number of threads of a model. Write MODEL=N, such as 'cars196=2'.")
        found[model] = int(number)
    return found


# keys


keys = typer.Typer(help="Make, list and revoke the API keys of 'nameplate serve'.", no_args_is_help=True)
app.add_typer(keys, name="keys")

File = Annotated[
    Path, typer.Argument(metavar="FILE", help="The file that keeps the hashes of the keys.", show_default=False)
]
Name = Annotated[
    str, typer.Argument(metavar="NAME", help="The owner of the key; the logs show this name.", show_default=False)
]


@keys.command()
def add(
    file: File,
    name: Name,
    admin: Annotated[bool, typer.Option("--admin", help="The key may also reload bundles.")] = False,
    days: Annotated[
        float | None, typer.Option(metavar="DAYS", help="Let the key expire after so many days.", show_default="never")
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(metavar="N/PERIOD", help="Allowed requests of this key, in place of the --rate of the service."),
    ] = None,
    json: Json = False,
) -> None:
    """Make a key and show it once: the file keeps only its hash. A running service accepts it within a second."""
    from nameplate.serve.keys import add_key

    token = add_key(file, name, admin=admin, days=days, rate=rate or "")
    if json:
        screen.print_json({"file": str(file), "name": name, "admin": admin, "key": token})
        return
    screen.out.print(token)
    screen.note("keep it", f"The key of '{name}' cannot be shown again: {file} holds its hash alone.")


@keys.command("list")
def list_(file: File, json: Json = False) -> None:
    """List the keys: their owners, dates and rates."""
    from nameplate.serve.keys import read_keys

    found = read_keys(file)
    if json:
        screen.print_json(
            [
                {
                    "name": key.name,
                    "created": key.created,
                    "admin": key.admin,
                    "expires": key.expires or None,
                    "expired": key.expired,
                    "rate": key.rate or None,
                }
                for key in found
            ]
        )
        return
    for key in found:
        facts = ["admin"] if key.admin else []
        if key.expires:
            facts.append(f"{'expired' if key.expired else 'until'} {key.expires}")
        if key.rate:
            facts.append(key.rate)
        screen.out.print("  ".join([f"{key.name:24}", key.created, *facts]))
    if not found:
        screen.notes.print(f"{file} holds no keys: every request that needs one is refused.")


@keys.command()
def remove(file: File, name: Name, json: Json = False) -> None:
    """Revoke a key. A running service refuses it within a second."""
    from nameplate.serve.keys import remove_key

    remove_key(file, name)
    if json:
        screen.print_json({"file": str(file), "removed": name})
    else:
        screen.out.print(f"Removed the key of '{name}'")
