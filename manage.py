"""Running the service from the shell: keys of callers, and which model answers.  Services notice both by themselves.

    python cli.py keys create shop --per-minute 120        prints the key, once
    python cli.py models                                   what there is, what answers, how it fares
    python cli.py publish                                  the newest run answers from now on
    python cli.py activate MODEL_ID --challenger MODEL_ID --share 0.1
    python cli.py rollback                                 back to what answered before; again goes further back

All of them work on the database that DATABASE_URL names, as its owner, or on the embedded one.
"""

import argparse
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from config import Config
from encoder_files import load_encoders
from engine.checkpoint import Checkpoint, load_checkpoint
from engine.runs import VALIDATION_METRIC
from engine.song_map import ensure_map
from errors import ConfigError
from options import add_arguments, config_from_arguments
from storage.connections import Connection, connect, database_url, expected_errors
from storage.keys import ApiKey, active_keys, all_keys, create_key, revoke_key
from storage.migrate import migrate
from storage.models import (
    Deployment,
    Model,
    ModelFigures,
    current_deployment,
    deploy,
    known_models,
    model_figures,
    refuse_model,
    register_model,
    roll_back,
)

DEFAULT_SHARE = 0.1
LONGEST_DAYS = 36_500


# --- keys --------------------------------------------------------------------------------------------------------------------


def keys_command(argv: Sequence[str]) -> int:
    """Make, list or revoke keys; the text of a new one is printed once and kept nowhere."""
    parser = argparse.ArgumentParser(prog="cli.py keys", description="Who may use the service over HTTP.")
    parser.add_argument("action", choices=["create", "list", "revoke"])
    parser.add_argument("name", nargs="?", help="create: whose key it is; revoke: the key's id, as list shows it")
    parser.add_argument("--manage", action="store_true", help="create: the key may also activate models")
    parser.add_argument("--per-minute", type=int, metavar="N", help="create: requests a minute (default: as the settings say)")
    parser.add_argument("--days", type=float, metavar="N", help="create: the key ends after so many days (default: never)")
    config, arguments = _parsed(parser, argv, "database")
    if (arguments.name is None) != (arguments.action == "list"):
        raise ConfigError("write keys create NAME, keys revoke KEY_ID, or keys list without a name")
    with _database(config) as connection:
        if arguments.action == "create":
            print(_created(connection, arguments))
        elif arguments.action == "revoke":
            revoke_key(connection, arguments.name)
            print(f"revoked {arguments.name}: services refuse it within seconds")
        else:
            print("\n".join(key_lines(connection)))
    return 0


def _created(connection: Connection, arguments: argparse.Namespace) -> str:
    if arguments.days is not None and not 0 < arguments.days <= LONGEST_DAYS:
        raise ConfigError(f"--days must be above 0 and at most {LONGEST_DAYS} (got {arguments.days:g})")
    expires_at = None if arguments.days is None else datetime.now(UTC) + timedelta(days=arguments.days)
    new = create_key(
        connection,
        arguments.name,
        may_manage=arguments.manage,
        requests_per_minute=arguments.per_minute,
        expires_at=expires_at,
    )
    return new.text


def key_lines(connection: Connection) -> Iterator[str]:
    """One line per key: id, state, whose, and what it may."""
    active = {key.key_id for key in active_keys(connection)}
    keys = all_keys(connection)
    if not keys:
        yield "no keys: python cli.py keys create NAME makes one"
    for key in keys:
        yield f"{key.key_id}  {_state_of_key(key, key.key_id in active):<28}  {key.name}  ({', '.join(_abilities(key))})"


def _state_of_key(key: ApiKey, is_active: bool) -> str:
    if key.revoked_at is not None:
        return f"revoked {_shown(key.revoked_at)}"
    if key.expires_at is None:
        return "active"
    return f"{'active until' if is_active else 'ended'} {_shown(key.expires_at)}"


def _abilities(key: ApiKey) -> Iterator[str]:
    yield "may manage" if key.may_manage else "may ask"
    if key.requests_per_minute is not None:
        yield f"{key.requests_per_minute} a minute"
    yield f"made {_shown(key.created_at)}"


# --- models ------------------------------------------------------------------------------------------------------------------


def models_command(argv: Sequence[str]) -> int:
    """List the models: id, training time, validation NDCG@10, state and figures."""
    parser = argparse.ArgumentParser(prog="cli.py models", description="The models, which of them answers, and how they fare.")
    config, _ = _parsed(parser, argv, "database")
    with _database(config) as connection:
        deployment = current_deployment(connection)
        figures = {one.model_id: one for one in model_figures(connection)}
        lines = [model_line(model, deployment, figures[model.model_id]) for model in known_models(connection)]
    if lines and deployment is None:
        lines.append("none was activated: a service answers with its newest finished run")
    print("\n".join(lines) if lines else "no models: python cli.py publish makes the newest run known")
    return 0


def model_line(model: Model, deployment: Deployment | None, figures: ModelFigures) -> str:
    """What is known of one model, in one line."""
    trained = "unknown time" if model.trained_at is None else _shown(model.trained_at)
    counted = (
        f"answers {figures.answers}, songs {figures.songs}, fallbacks {figures.fallbacks}, played {figures.played}, "
        f"skipped {figures.skipped}, liked {figures.liked}, never again {figures.never_again}"
    )
    return f"{model.model_id}  {trained}  ndcg@10 {_quality(model.metrics)}  {_state_of_model(model, deployment)}  {counted}"


def _state_of_model(model: Model, deployment: Deployment | None) -> str:
    if model.refused is not None:
        return f"refused ({model.refused})"
    if deployment is not None and model.model_id == deployment.model_id:
        return "serving"
    if deployment is not None and model.model_id == deployment.challenger_id:
        return f"challenger ({deployment.challenger_share:g} of the sequences)"
    return "known"


def _quality(metrics: Mapping[str, float]) -> str:
    quality = metrics.get(VALIDATION_METRIC)
    return "unknown" if quality is None else f"{quality:.4f}"


def publish_command(argv: Sequence[str]) -> int:
    """Verify a run by loading it, make it known, and have it answer from now on."""
    parser = argparse.ArgumentParser(prog="cli.py publish", description="Have a run answer: by default the newest one.")
    parser.add_argument("run", nargs="?", type=Path, metavar="RUN", help="a run's or a checkpoint's folder (default: the newest)")
    config, arguments = _parsed(parser, argv, "database", "training")
    checkpoint = load_checkpoint(arguments.run or config.training.model_folder)
    load_encoders(checkpoint.encoders_folder, checkpoint.encoders_digest)
    ensure_map(checkpoint.path, checkpoint.model, config.training.map_songs)
    with _database(config) as connection:
        register_model(connection, model_of(checkpoint))
        refuse_model(connection, checkpoint.model_id, None)  # it could be loaded, whatever was wrong with it before
        deployment = deploy(connection, checkpoint.model_id)
    print(f"verified {checkpoint.path.resolve()}")
    print(deployed_line(deployment))
    return 0


def model_of(checkpoint: Checkpoint) -> Model:
    """What the database is told of a checkpoint."""
    return Model(
        model_id=checkpoint.model_id,
        path=str(checkpoint.path.resolve()),
        encoders_digest=checkpoint.encoders_digest,
        snapshot_digest=checkpoint.snapshot_digest,
        settings=checkpoint.settings,
        metrics=checkpoint.metrics,
        trained_at=checkpoint.trained_at,
    )


def activate_command(argv: Sequence[str]) -> int:
    """Have a known model answer, and if asked a challenger for a share of the sequences."""
    parser = argparse.ArgumentParser(prog="cli.py activate", description="Have a model answer that `cli.py models` lists.")
    parser.add_argument("model_id", metavar="MODEL_ID")
    parser.add_argument("--challenger", metavar="MODEL_ID", help="a second model, which answers for a share of the sequences")
    parser.add_argument("--share", type=float, help=f"of the challenger, between 0 and 1 (default {DEFAULT_SHARE})")
    config, arguments = _parsed(parser, argv, "database")
    share = arguments.share
    if share is None:
        share = 0.0 if arguments.challenger is None else DEFAULT_SHARE
    with _database(config) as connection:
        deployment = deploy(connection, arguments.model_id, challenger_id=arguments.challenger, challenger_share=share)
    print(deployed_line(deployment))
    return 0


def rollback_command(argv: Sequence[str]) -> int:
    """Have answer what answered before."""
    parser = argparse.ArgumentParser(prog="cli.py rollback", description="Back to the model that answered before.")
    config, _ = _parsed(parser, argv, "database")
    with _database(config) as connection:
        deployment = roll_back(connection)
    print(deployed_line(deployment))
    return 0


def deployed_line(deployment: Deployment) -> str:
    """What answers from now on."""
    beside = ""
    if deployment.challenger_id is not None:
        beside = f", and {deployment.challenger_id} for {deployment.challenger_share:g} of the sequences"
    return f"serving {deployment.model_id}{beside}: services follow within seconds"


# --- what the commands share ---------------------------------------------------------------------------------------------------


def _parsed(parser: argparse.ArgumentParser, argv: Sequence[str], *sections: str) -> tuple[Config, argparse.Namespace]:
    add_arguments(parser, *sections)
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    return config_from_arguments(arguments), arguments


@contextmanager
def _database(config: Config) -> Iterator[Connection]:
    """A connection that commits at its end; our own server is brought up to date first, since nobody else would do it."""
    with database_url(config.database) as url, connect(url) as connection, expected_errors():
        if config.database.is_embedded:
            migrate(connection)
        yield connection


def _shown(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M}Z"
