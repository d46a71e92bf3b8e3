"""The engine agent as a process, with the fake engine in place of a real one: all else is what production runs."""

from functools import partial

from kit.serve import run
from services.gateway.host.app import application
from services.gateway.host.settings import HostSettings
from tests.fakes.engine import FakeEngine

if __name__ == "__main__":
    run(HostSettings.from_env, partial(application, engines={"fake": FakeEngine()}))
