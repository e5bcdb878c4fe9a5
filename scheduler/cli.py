"""The command line: `wholepod …`, and as a kubectl plugin `kubectl wholepod …`.

Exit codes: 0 done, 1 answered no, 2 usage or configuration, 3 cluster unusable (unreachable,
unauthorised, forbidden, or the lease lost).
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import NoReturn, TypeVar

import click
import msgspec
import yaml

from scheduler import __version__
from scheduler.config import (
    Configuration,
    ConfigurationError,
    ProfileConfig,
    checked,
    load,
    parse_duration_s,
    read_text,
    split_address,
)
from scheduler.controller.settings import ControllerSettings
from scheduler.extender.settings import DEFAULT_ADDRESS, ExtenderSettings

S = TypeVar("S", bound=msgspec.Struct)

CONTROLLER_ADDRESS = "127.0.0.1:10260"
EXTENDER_ADDRESS = "127.0.0.1:10261"
DEFAULT_URL = "http://127.0.0.1:10259"
EXIT_CONFIGURATION = 2
EXIT_CLUSTER = 3

_KUBECONFIG = click.option("--kubeconfig", help="Default: $KUBECONFIG, then in-cluster, then ~/.kube/config.")
_LOG_LEVEL = click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="[default: info]"
)
_LOG_FORMAT = click.option(
    "--log-format",
    type=click.Choice(["auto", "json", "console"]),
    help="auto: console on a terminal. [default: auto]",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="wholepod")
def main() -> None:
    """Wholepod places whole pods by memory fit: a Kubernetes scheduler.

    Pods choose it with `schedulerName: wholepod` in their spec.
    """


@main.command()
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="Configuration file; flags override it."
)
@_KUBECONFIG
@click.option(
    "--scheduler-name",
    "scheduler_names",
    multiple=True,
    help="Serve pods with this schedulerName; repeat for several. `default-scheduler` decides as "
    "kube-scheduler would, other names by memory fit, unless the configuration file says otherwise.",
)
@click.option("--leader-elect", type=bool, help="Whether to hold a Lease while scheduling. [default: true]")
@click.option(
    "--leader-elect-resource-name",
    help="The Lease's name, and with -journal behind it the journal's. [default: wholepod]",
)
@click.option("--kube-api-qps", type=float, help="Requests a second to the API server. [default: 50]")
@click.option("--kube-api-burst", type=int, help="Requests at once above that. [default: 100]")
@click.option("--bind-address", help="HOST:PORT for metrics and health. [default: 127.0.0.1:10259]")
@_LOG_LEVEL
@_LOG_FORMAT
def run(
    config_file: Path | None,
    kubeconfig: str | None,
    scheduler_names: tuple[str, ...],
    leader_elect: bool | None,
    leader_elect_resource_name: str | None,
    kube_api_qps: float | None,
    kube_api_burst: int | None,
    bind_address: str | None,
    log_level: str | None,
    log_format: str | None,
) -> None:
    """Run the scheduler until SIGTERM or SIGINT."""
    try:
        configuration = load(config_file) if config_file is not None else Configuration()
        configuration = checked(
            overridden(
                configuration,
                scheduler_names=scheduler_names,
                connection={"kubeconfig": kubeconfig, "qps": kube_api_qps, "burst": kube_api_burst},
                election={"leader_elect": leader_elect, "resource_name": leader_elect_resource_name},
                logging={"level": log_level, "format": log_format},
                bind_address=bind_address,
            ),
            source=str(config_file or "flags"),
        )
        split_address(configuration.bind_address)
    except ConfigurationError as error:
        _fail(error, EXIT_CONFIGURATION)
    _run(configuration)


def overridden(
    configuration: Configuration,
    *,
    scheduler_names: tuple[str, ...] = (),
    connection: dict[str, object] | None = None,
    election: dict[str, object] | None = None,
    logging: dict[str, object] | None = None,
    bind_address: str | None = None,
) -> Configuration:
    """The configuration with what flags have set (None: not set)."""
    replace = msgspec.structs.replace
    if scheduler_names:
        # Names of the file's profiles select them; others get a profile of their own.
        in_file = {profile.scheduler_name: profile for profile in configuration.profiles}
        profiles = tuple(
            in_file.get(name, ProfileConfig(scheduler_name=name)) for name in dict.fromkeys(scheduler_names)
        )
        configuration = replace(configuration, profiles=profiles)
    return replace(
        configuration,
        client_connection=_with(configuration.client_connection, connection),
        leader_election=_with(configuration.leader_election, election),
        logging=_with(configuration.logging, logging),
        bind_address=bind_address or configuration.bind_address,
    )


def _with(part: S, values: dict[str, object] | None) -> S:
    return msgspec.structs.replace(part, **{k: v for k, v in (values or {}).items() if v is not None})


def _run(configuration: Configuration, settings: ControllerSettings | ExtenderSettings | None = None) -> None:
    """The scheduler, or with settings for it the controller or the extender."""
    # Little of what we allocate is cyclic, and of what is imported now nothing is garbage.
    gc.set_threshold(50_000, 20, 100)
    # Imported here, so that --help does not wait for the Kubernetes client.
    import uvloop

    from scheduler.kube.errors import ConfigError, KubeError
    from scheduler.observe import logs
    from scheduler.plugins import PluginError

    logs.configure(configuration.logging.level, configuration.logging.format)

    async def serve() -> None:
        if settings is None:
            from scheduler.app import App

            await App(configuration).run()
        elif isinstance(settings, ExtenderSettings):
            from scheduler.extender.app import Extender

            await Extender(configuration, settings).run()
        else:
            from scheduler.controller.app import Controller

            await Controller(configuration, settings).run()

    try:
        uvloop.run(serve())
    except (ConfigurationError, PluginError, ConfigError) as error:
        _fail(error, EXIT_CONFIGURATION)
    except KubeError as error:
        _fail(error, EXIT_CLUSTER)


@main.command()
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    help="The scheduler's configuration file: whose pods count (profiles), and what gangs may ask for. "
    "Flags override it.",
)
@_KUBECONFIG
@click.option(
    "--scheduler-name",
    "scheduler_names",
    multiple=True,
    help="Look after pods with this schedulerName; repeat for several. [default: wholepod]",
)
@click.option(
    "--install-crds", is_flag=True, help="Create the CRD of PodGroups first, unless there is one already."
)
@click.option("--webhook-address", help="HOST:PORT for the validating webhook. [default: no webhook]")
@click.option("--webhook-cert-file", help="Its certificate (PEM); taken up again when it changes.")
@click.option("--webhook-key-file", help="The certificate's key (PEM).")
@click.option(
    "--bind-address",
    default=CONTROLLER_ADDRESS,
    show_default=True,
    help="HOST:PORT for metrics and health.",
)
@_LOG_LEVEL
@_LOG_FORMAT
def controller(
    config_file: Path | None,
    kubeconfig: str | None,
    scheduler_names: tuple[str, ...],
    install_crds: bool,
    webhook_address: str | None,
    webhook_cert_file: str | None,
    webhook_key_file: str | None,
    bind_address: str,
    log_level: str | None,
    log_format: str | None,
) -> None:
    """Run the controller until SIGTERM or SIGINT. The scheduler works without it.

    \b
    It looks after PodGroups of scheduling.x-k8s.io:
    - writes their status: phase, counts, conditions, and that scheduleTimeoutSeconds are over;
    - creates one for a Job, JobSet or StatefulSet annotated wholepod.io/create-pod-group: "true";
    - with --webhook-address, refuses what could never be scheduled, and says how to put it right;
    - warns of containers of one pod that declare the same port.

    Several may run at once. The webhook is asked when deploy/overlays/webhook is applied.
    """
    try:
        configuration = load(config_file) if config_file is not None else Configuration()
        configuration = checked(
            overridden(
                configuration,
                scheduler_names=scheduler_names,
                connection={"kubeconfig": kubeconfig},
                logging={"level": log_level, "format": log_format},
                bind_address=bind_address,
            ),
            source=str(config_file or "flags"),
        )
        settings = ControllerSettings.of(
            install_crds=install_crds,
            webhook_address=webhook_address or "",
            webhook_cert_file=webhook_cert_file or "",
            webhook_key_file=webhook_key_file or "",
        )
    except ConfigurationError as error:
        _fail(error, EXIT_CONFIGURATION)
    _run(configuration, settings)


@main.command()
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    help="The scheduler's configuration file: profiles by the pods' schedulerName, the first one for all "
    "others. Flags override it. [default: memory fit for all pods]",
)
@_KUBECONFIG
@click.option(
    "--address", help=f"HOST:PORT that kube-scheduler asks (urlPrefix). [default: {DEFAULT_ADDRESS}]"
)
@click.option("--tls-cert-file", help="Serve over TLS with this certificate (PEM); taken up when it changes.")
@click.option("--tls-key-file", help="The certificate's key (PEM).")
@click.option("--tls-client-ca-file", help="Serve only who presents a certificate signed by these (PEM).")
@click.option(
    "--http-timeout", help="As in kube-scheduler's configuration: answers come before it. [default: 5s]"
)
@click.option(
    "--unknown-nodes",
    type=click.Choice(["refuse", "pass"]),
    help="Nodes that kube-scheduler knows and the extender does not (yet). [default: refuse]",
)
@click.option("--max-request-mib", type=int, help="Refuse larger requests. [default: 64]")
@click.option("--kube-api-qps", type=float, help="Binds a second to the API server. [default: 50]")
@click.option("--kube-api-burst", type=int, help="Binds at once above that. [default: 100]")
@click.option(
    "--bind-address",
    default=EXTENDER_ADDRESS,
    show_default=True,
    help="HOST:PORT for metrics and health.",
)
@_LOG_LEVEL
@_LOG_FORMAT
def extender(
    config_file: Path | None,
    kubeconfig: str | None,
    address: str | None,
    tls_cert_file: str | None,
    tls_key_file: str | None,
    tls_client_ca_file: str | None,
    http_timeout: str | None,
    unknown_nodes: str | None,
    max_request_mib: int | None,
    kube_api_qps: float | None,
    kube_api_burst: int | None,
    bind_address: str,
    log_level: str | None,
    log_format: str | None,
) -> None:
    """Answer a kube-scheduler that asks for memory fit, until SIGTERM or SIGINT.

    It serves the verbs filter, prioritize, preempt and bind of kube-scheduler's `extenders`. Ready-made
    configurations for kube-scheduler are in deploy/extender/.
    """
    try:
        if config_file is not None:
            configuration = load(config_file)
        else:
            everybody = ProfileConfig(scheduler_name="default-scheduler", preset="memory-fit")
            configuration = Configuration(profiles=(everybody,))
        configuration = checked(
            overridden(
                configuration,
                connection={"kubeconfig": kubeconfig, "qps": kube_api_qps, "burst": kube_api_burst},
                logging={"level": log_level, "format": log_format},
                bind_address=bind_address,
            ),
            source=str(config_file or "flags"),
        )
        split_address(configuration.bind_address)
        settings = ExtenderSettings.of(
            address=address,
            cert_file=tls_cert_file,
            key_file=tls_key_file,
            client_ca_file=tls_client_ca_file,
            http_timeout_s=None if http_timeout is None else parse_duration_s(http_timeout),
            unknown_nodes=unknown_nodes,
            max_request_bytes=None if max_request_mib is None else max_request_mib * 2**20,
        )
    except ConfigurationError as error:
        _fail(error, EXIT_CONFIGURATION)
    _run(configuration, settings)


@main.command()
@click.argument("names", nargs=-1, metavar="[[NAMESPACE/]NAME]...")
@click.option("-n", "--namespace", help="Only gangs of this namespace. [default: all]")
@click.option("--state", "states", multiple=True, help="Only gangs in this state; repeat for several.")
@click.option("--strategy", "strategies", multiple=True, help="Only gangs of this strategy; likewise.")
@click.option(
    "--url", default=DEFAULT_URL, show_default=True, help="Where a scheduler listens (bindAddress)."
)
@click.option("--ca-file", type=click.Path(path_type=Path), help="Verify an https URL by these certificates.")
@click.option("--insecure-skip-tls-verify", is_flag=True, help="Don't verify an https URL.")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    help="Bearer token, for a scheduler that asks for one (as from `kubectl create token`).",
)
@click.option(
    "-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="Format."
)
def gangs(
    names: tuple[str, ...],
    namespace: str | None,
    states: tuple[str, ...],
    strategies: tuple[str, ...],
    url: str,
    ca_file: Path | None,
    insecure_skip_tls_verify: bool,
    token_file: Path | None,
    output: str,
) -> None:
    """List gangs: their members, strategy and state, and what each waits for.

    With names, their members are listed too; the exit code is 1 when there is no such gang.

    Holds and claims are in the memory of the scheduler that leads, not in the cluster, so it is asked, by
    HTTP. It mostly listens inside of its pod only:

    \b
      kubectl port-forward -n kube-system deployment/wholepod 10259 &
      wholepod gangs

    \b
    States:
      incomplete   members are missing, or what describes the gang
      waiting      its members exist, and there is no room for them
      planning     it is being decided for
      holding      strategy hoarding: places are kept for some members
      claimed      strategy optimistic: some members have places in mind
      committing   members are being bound
      bound        at least min-count members have nodes
    """
    from scheduler.show_gangs import Selection, ask, show

    try:
        selection = Selection.of(names, namespace=namespace, states=states, strategies=strategies)
        answer = ask(url, ca_file=ca_file, verify=not insecure_skip_tls_verify, token_file=token_file)
    except ConfigurationError as error:
        _fail(error, EXIT_CONFIGURATION)
    except OSError as error:
        _fail(error, EXIT_CLUSTER)
    sys.exit(show(answer, selection, as_json=output == "json"))


@main.group("config")
def config_group() -> None:
    """Work on configuration files."""


@config_group.command("convert")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option(
    "-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True, help="Format."
)
def config_convert(file: Path, output: str) -> None:
    """Turn a KubeSchedulerConfiguration into Wholepod's configuration, for `wholepod run --config`.

    FILE is kube-scheduler's (kubescheduler.config.k8s.io/v1), `-` standard input. The result goes to
    standard output; what in it has no equivalent is named on standard error, with line and reason.
    """
    from scheduler.convert import convert

    try:
        source = "standard input" if str(file) == "-" else str(file)
        text = sys.stdin.read() if str(file) == "-" else read_text(file)
        document, notes = convert(text, source=source)
    except ConfigurationError as error:
        _fail(error, EXIT_CONFIGURATION)
    for note in notes:
        click.echo(f"warning: {note}", err=True)
    if output == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(document)).decode())
    else:
        click.echo(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), nl=False)


def _fail(error: Exception, code: int) -> NoReturn:
    click.echo(f"wholepod: {error}", err=True)
    sys.exit(code)
