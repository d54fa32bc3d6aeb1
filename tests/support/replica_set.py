"""A replica set of three whose members know each other, and are known, by their proxies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from evaluation.proxy import announce
from promo_service.embedded import EmbeddedMongod, Member
from tests.support.mongo import running_mongod
from tests.support.wire import CommandProxy, Decide, Fate

MEMBERS = 3


def pass_all(_command: object) -> Fate:
    """Decide that every command is run and answered."""
    return Fate.PASS


class ReplicaSet:
    """The members, and what stands between them and everybody else."""

    def __init__(self, mongod: EmbeddedMongod, proxies: list[CommandProxy]) -> None:
        self.members = mongod.members
        self._mongod = mongod
        self._proxies = proxies
        hosts = ",".join(proxy.address for proxy in proxies)
        self.uri = f"mongodb://{hosts}/?replicaSet={mongod.replica_set}"

    def decide(self, decide: Decide = pass_all) -> None:
        """Let this decide about the commands to every member from now on."""
        for proxy in self._proxies:
            proxy.decide = decide

    def primary(self, timeout: float = 30) -> Member:
        """Return the member that takes writes, as soon as there is one."""
        port = int(self._mongod.wait_for_primary(timeout).rpartition(":")[2])
        ports = [proxy.port for proxy in self._proxies]
        return self.members[ports.index(port)]


@contextmanager
def replica_set() -> Iterator[ReplicaSet]:
    """Run the members, with fail points allowed, and their proxies."""
    with ExitStack() as stack:
        mongod = stack.enter_context(running_mongod(members=MEMBERS))
        proxies = [stack.enter_context(CommandProxy(member.port)) for member in mongod.members]
        announce(mongod, [proxy.address for proxy in proxies])
        yield ReplicaSet(mongod, proxies)
