"""Register the model as a version and decide about its alias.

    python -m pipeline register

A version that is better than the champion on the same test clips becomes the champion; any other
becomes a challenger. The ``register`` section of ``params.yaml`` says what counts as better.
"""

from pipeline import params, paths, tables
from pipeline.registry import champions, names, served, versions
from pipeline.tracking import provenance, runs, store


def main() -> str:
    """Make sure that the registry has the model, with alias, model card, tags and metrics.

    Returns
    -------
    str
        The stage's closing line.
    """
    settings = params.load()
    record = runs.read()
    runs.figures(record)  # refuses those of another model

    client = store.connect()
    dataset = record.tags[provenance.DATASET_NAME]
    name = names.resolve(client, settings.register_, dataset)
    run_id = runs.ensure(client, record)
    runs.log_evaluation(client, run_id)
    version = versions.registered(client, name, record)
    existed = version is not None
    if version and version.run_id != run_id:
        # A repeated training gave the same weights: its evaluation is that of the version's run.
        runs.log_evaluation(client, runs.get_undeleted(client, version.run_id).info.run_id)
    if version is None or versions.DECISION not in version.tags:
        champion = champions.champion(client, name)
        decision = versions.decide(client, name, champion, record, settings.register_, version)
        version = version or versions.create(client, name, run_id, record)
        decision = versions.give_alias(client, version, decision, record, settings.register_)
        tags = {versions.TABLE: decision.table, versions.AGAINST: decision.against or ""}
        versions.set_tags(client, version, tags)
        versions.describe(client, version, record, decision.reason)
        versions.set_tag(client, version, versions.DECISION, decision.reason)
    else:
        versions.describe(client, version, record, version.tags[versions.DECISION])
    version = client.get_model_version(name, version.version)
    aliases = sorted(version.aliases)
    registration = {
        "name": name,
        "version": int(version.version),
        "aliases": aliases,
        "run_id": run_id,
        "decision": version.tags[versions.DECISION],
    }
    tables.write_json(paths.REGISTRATION, registration)
    state = "is already registered" if existed else "registered"
    number = str(version.version)
    return (
        f"{name} version {number} {state}, alias {', '.join(aliases) or 'none'};"
        f" {served.find(client, name, version).beside(number)}{served.kept_name(settings, name)}"
        f"{served.other_dataset(client, name, dataset)}"
    )
