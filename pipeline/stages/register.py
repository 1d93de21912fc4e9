"""Stage ``register``: make the model a version in the MLflow registry."""

import json

from pipeline import params, paths
from pipeline.registry import champions, versions
from pipeline.tracking import runs, store


def main() -> str:
    """Make sure that the registry has the model, with alias, card, tags and figures.

    Returns
    -------
    str
        The stage's closing line.
    """
    settings = params.load()
    name = settings.register_.name
    record = runs.read()

    client = store.connect()
    run_id = runs.ensure(client, record)
    runs.log_evaluation(client, run_id)
    version = versions.registered(client, name, record)
    known = version is not None
    if version and version.run_id != run_id:
        # trained again, to the bit the same: what is evaluated of it is true of its version too
        runs.log_evaluation(client, runs.active(client, version.run_id).info.run_id)
    if version is None or versions.DECISION not in version.tags:
        champion = champions.champion(client, name)
        decision = versions.decide(client, champion, record, settings.register_, but=version)
        version = version or versions.create(client, name, run_id, record)
        decision = versions.give_alias(client, version, decision, record, settings.register_)
        versions.set_tags(
            client,
            version,
            {versions.TABLE: decision.table, versions.AGAINST: decision.against or ""},
        )
        versions.describe(client, version, record, decision.reason)
        client.set_model_version_tag(name, version.version, versions.DECISION, decision.reason)
    else:
        versions.describe(client, version, record, version.tags[versions.DECISION])
    version = client.get_model_version(name, version.version)
    aliases = sorted(version.aliases)
    written = {
        "name": name,
        "version": int(version.version),
        "aliases": aliases,
        "run_id": run_id,
        "decision": version.tags[versions.DECISION],
    }
    paths.REGISTRATION.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    state = "is there already" if known else "registered"
    return f"{name} version {version.version} {state}, alias {', '.join(aliases) or 'none'}"
