"""What a client has for each noun, without ``await``; each method is the asynchronous one, waited for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from kit.rpc.errors import Invalid
from sluice.client import (
    access,
    catalogue,
    datasets,
    evaluations,
    eventlog,
    feeds,
    governance,
    jobs,
    models,
    serving,
    storage,
    task_types,
)
from sluice.client.blocking import Facade, LoopThread, blocking, iterating
from sluice.client.login import Login
from sluice.client.rows import OpenedVersion


class Datasets(Facade):
    """``client.datasets``; ``login`` is that of the client that it is of."""

    def __init__(self, loop: LoopThread, group: datasets.Datasets, login: Login) -> None:
        super().__init__(loop, group)
        self._login = login

    upload = blocking(datasets.Datasets.upload)
    append = blocking(datasets.Datasets.append)
    get = blocking(datasets.Datasets.get)
    list = blocking(datasets.Datasets.list)
    update = blocking(datasets.Datasets.update)
    delete = blocking(datasets.Datasets.delete)
    version = blocking(datasets.Datasets.version)
    versions = blocking(datasets.Datasets.versions)
    read = iterating(datasets.Datasets.read)
    arrow_pieces = iterating(datasets.Datasets.arrow_pieces)
    upload_of = blocking(datasets.Datasets.upload_of)
    quarantine = iterating(datasets.Datasets.quarantine)
    asset = blocking(datasets.Datasets.asset)
    asset_contents = iterating(datasets.Datasets.asset_contents)
    assets = blocking(datasets.Datasets.assets)
    statistics = blocking(datasets.Datasets.statistics)
    duplicates = blocking(datasets.Datasets.duplicates)
    diff = blocking(datasets.Datasets.diff)
    preview = blocking(datasets.Datasets.preview)

    def open(self, version: str, split: str = "", columns: Sequence[str] = ()) -> OpenedVersion:
        """A version's rows, or one split's, as a ``datasets.Dataset``, a Polars frame, a torch dataset or Arrow.

        ``version`` is `bank-intents@3`, or `bank-intents` for the newest. Rows are read when they are asked for.
        """
        found = self.version(version)
        if split and split not in found.split_rows:
            raise Invalid(f"there is no split `{split}`; there are {', '.join(sorted(found.split_rows))}")
        rows = found.split_rows[split] if split else found.row_count
        pieces = partial(self.arrow_pieces, found.name, split, tuple(columns))
        reopen = partial(_open, self._login, found.name, split, tuple(columns))

        def assets(digests: Sequence[str], png: bool) -> Iterator[bytes]:
            return self.asset_contents(found.name, digests, png=png)

        return OpenedVersion(found.name, split, rows, pieces, assets, reopen)


class Feeds(Facade):
    """``client.feeds``."""

    create = blocking(feeds.Feeds.create)
    get = blocking(feeds.Feeds.get)
    list = blocking(feeds.Feeds.list)
    update = blocking(feeds.Feeds.update)
    delete = blocking(feeds.Feeds.delete)
    append = blocking(feeds.Feeds.append)
    flush = blocking(feeds.Feeds.flush)


class Storage(Facade):
    """``client.storage``."""

    damaged = blocking(storage.Storage.damaged)
    scrub = blocking(storage.Storage.scrub)


class Jobs(Facade):
    """``client.jobs``."""

    create = blocking(jobs.Jobs.create)
    plan = blocking(jobs.Jobs.plan)
    get = blocking(jobs.Jobs.get)
    pull = blocking(jobs.Jobs.pull)
    list = blocking(jobs.Jobs.list)
    watch = iterating(jobs.Jobs.watch)
    wait = blocking(jobs.Jobs.wait)
    cancel = blocking(jobs.Jobs.cancel)
    pause = blocking(jobs.Jobs.pause)
    resume = blocking(jobs.Jobs.resume)
    retry = blocking(jobs.Jobs.retry)
    logs = iterating(jobs.Jobs.logs)
    steps = blocking(jobs.Jobs.steps)
    reproduce = blocking(jobs.Jobs.reproduce)
    compare = blocking(jobs.Jobs.compare)


class Models(Facade):
    """``client.models``."""

    list = blocking(models.Models.list)
    get = blocking(models.Models.get)
    versions = blocking(models.Models.versions)
    version = blocking(models.Models.version)
    watch = iterating(models.Models.watch)
    import_folder = blocking(models.Models.import_folder)
    import_base = blocking(models.Models.import_base)
    download = blocking(models.Models.download)
    export = blocking(models.Models.export)
    pull = blocking(models.Models.pull)
    approve = blocking(models.Models.approve)
    revoke = blocking(models.Models.revoke)


class Evaluations(Facade):
    """``client.evaluations``."""

    create = blocking(evaluations.Evaluations.create)
    get = blocking(evaluations.Evaluations.get)
    list = blocking(evaluations.Evaluations.list)
    watch = iterating(evaluations.Evaluations.watch)
    rows = iterating(evaluations.Evaluations.rows)
    cancel = blocking(evaluations.Evaluations.cancel)
    retry = blocking(evaluations.Evaluations.retry)


class Endpoints(Facade):
    """``client.endpoints``."""

    get = blocking(serving.Endpoints.get)
    list = blocking(serving.Endpoints.list)
    create = blocking(serving.Endpoints.create)
    set_plan = blocking(serving.Endpoints.set_plan)


class Rollouts(Facade):
    """``client.rollouts``."""

    create = blocking(serving.Rollouts.create)
    get = blocking(serving.Rollouts.get)
    list = blocking(serving.Rollouts.list)
    watch = iterating(serving.Rollouts.watch)
    promote = blocking(serving.Rollouts.promote)
    rollback = blocking(serving.Rollouts.rollback)


class Deployments(Facade):
    """``client.deployments``."""

    list = blocking(serving.Deployments.list)


class Keys(Facade):
    """``client.keys``."""

    create = blocking(access.Keys.create)
    list = blocking(access.Keys.list)
    revoke = blocking(access.Keys.revoke)
    whoami = blocking(access.Keys.whoami)


class Projects(Facade):
    """``client.projects``."""

    create = blocking(access.Projects.create)
    get = blocking(access.Projects.get)
    list = blocking(access.Projects.list)


class GatePolicies(Facade):
    """``client.gate_policies``."""

    create = blocking(access.GatePolicies.create)
    update = blocking(access.GatePolicies.update)
    get = blocking(access.GatePolicies.get)
    list = blocking(access.GatePolicies.list)


class TaskTypes(Facade):
    """``client.task_types``."""

    propose = blocking(task_types.TaskTypes.propose)
    get = blocking(task_types.TaskTypes.get)
    list = blocking(task_types.TaskTypes.list)
    approve = blocking(task_types.TaskTypes.approve)
    retire = blocking(task_types.TaskTypes.retire)


class Erasures(Facade):
    """``client.erasures``."""

    create = blocking(governance.Erasures.create)
    get = blocking(governance.Erasures.get)
    list = blocking(governance.Erasures.list)
    watch = iterating(governance.Erasures.watch)


class Grants(Facade):
    """``client.grants``."""

    give = blocking(governance.Grants.give)
    take = blocking(governance.Grants.take)
    list = blocking(governance.Grants.list)
    govern = blocking(governance.Grants.govern)


class Records(Facade):
    """``client.records``."""

    audit = blocking(governance.Records.audit)
    models = blocking(governance.Records.models)


class Catalogue(Facade):
    """``client.catalogue``."""

    find = staticmethod(catalogue.Catalogue.find)
    search = staticmethod(catalogue.Catalogue.search)
    register = blocking(catalogue.Catalogue.register)


class EventLog(Facade):
    """``client.events(…)``."""

    list = blocking(eventlog.EventLog.list)
    tail = iterating(eventlog.EventLog.tail)
    dead_letters = blocking(eventlog.EventLog.dead_letters)
    replay = blocking(eventlog.EventLog.replay)


def _open(login: Login, version: str, split: str, columns: Sequence[str]) -> OpenedVersion:
    """A version opened by a client of this process's own."""
    return login.client().datasets.open(version, split, columns)
