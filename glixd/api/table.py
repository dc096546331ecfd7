# SPDX-License-Identifier: GPL-3.0-or-later
"""THE TABLE: one row per operation, with its parameters, its result and the policy that guards it.

From it come the D-Bus methods and their introspection, the JSON-RPC methods, the check that every operation has a policy,
the reference documentation and the shell completion. Required parameters are typed arguments in order; every optional one
travels by name (on the bus in the last argument, `a{sv} options`).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from glixd.api import mutations, queries, results
from glixd.api.grammar import Parameters, Value, shown
from glixd.errors import InvalidRequest
from glixd.near import LONGEST, did_you_mean, near
from glixd.protocol import ErrorCode
from glixd.values import dataclass


class Kind(StrEnum):
    """Whether an operation answers at once, or starts a transaction."""

    QUERY = "query"
    MUTATION = "mutation"


class Policy(StrEnum):
    """The rule of policy.py that guards an operation."""

    READ = "read"
    """Names, versions and hosts: open to every local caller."""
    READ_TRANSACTION = "read-transaction"
    CANCEL = "cancel"
    HOST_MANAGE = "host-manage"
    ADOPT = "adopt"
    UPDATE = "update"
    ROLLBACK = "rollback"
    INSTALL = "install"
    REMOVE = "remove"
    CONFIGURE = "configure"
    GARBAGE = "garbage"
    BUILD = "build"
    """Building what is committed: open to every local caller, since it changes nothing."""
    ACTIVATE = "activate"
    """Putting a system into effect: who does it asks polkit, and glixd does not ask again."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One row of the table."""

    name: str
    kind: Kind
    parameters: type[Parameters]
    result: type[Value]
    policy: Policy
    summary: str
    lookup: bool = False
    """Whether it costs so little that nobody counts how often a caller asks."""


def _query(name: str, parameters: type[Parameters], result: type[Value], policy: Policy, summary: str) -> Operation:
    return Operation(name, Kind.QUERY, parameters, result, policy, summary)


def _lookup(name: str, parameters: type[Parameters], result: type[Value], policy: Policy, summary: str) -> Operation:
    return Operation(name, Kind.QUERY, parameters, result, policy, summary, lookup=True)


def _mutation(name: str, parameters: type[mutations.MutationParameters], policy: Policy, summary: str) -> Operation:
    return Operation(name, Kind.MUTATION, parameters, results.Started, policy, summary)


_ROWS: Final = (
    _lookup("Ping", queries.Nothing, results.PingResult, Policy.READ, "Say that the daemon is there, and its version."),
    _lookup(
        "GetCapabilities", queries.Nothing, results.Capabilities, Policy.READ, "Say what this daemon is and can do."
    ),
    _lookup("ListHosts", queries.Nothing, results.Hosts, Policy.READ, "List the hosts of the repository."),
    _lookup("List", queries.ListParameters, results.Packages, Policy.READ, "List the packages of a host, or of all."),
    _lookup(
        "Show",
        queries.ShowParameters,
        results.PackageDetails,
        Policy.READ,
        "Show one package with everything that is known of it.",
    ),
    _query("Info", queries.Nothing, results.Info, Policy.READ, "Describe the repository, its hosts and its inputs."),
    _query(
        "Resolve",
        queries.ResolveParameters,
        results.Resolutions,
        Policy.READ,
        "Say what names and references mean, without changing anything.",
    ),
    _query(
        "ListInputs",
        queries.Nothing,
        results.Inputs,
        Policy.READ,
        "List the inputs as they are locked, with who uses them.",
    ),
    _query(
        "Diff",
        queries.DiffParameters,
        results.Difference,
        Policy.READ,
        "Compare the work tree with a commit, or two commits with each other.",
    ),
    _query(
        "Doctor",
        queries.DoctorParameters,
        results.Diagnosis,
        Policy.READ,
        "Look for what is wrong, and say how to mend it.",
    ),
    _query("History", queries.HistoryParameters, results.Histories, Policy.READ, "List the commits, the newest first."),
    _lookup(
        "ListTransactions",
        queries.ListTransactionsParameters,
        results.Transactions,
        Policy.READ_TRANSACTION,
        "List transactions.",
    ),
    _lookup(
        "GetTransaction",
        queries.TransactionParameters,
        results.Transaction,
        Policy.READ_TRANSACTION,
        "Show one transaction.",
    ),
    _lookup(
        "Watch",
        queries.TransactionParameters,
        results.Empty,
        Policy.READ_TRANSACTION,
        "Send me the progress of a transaction.",
    ),
    _lookup(
        "Unwatch",
        queries.TransactionParameters,
        results.Empty,
        Policy.READ_TRANSACTION,
        "Stop sending me the progress of a transaction.",
    ),
    _lookup(
        "Wait",
        queries.WaitParameters,
        results.Transaction,
        Policy.READ_TRANSACTION,
        "Answer when a transaction has ended.",
    ),
    _lookup(
        "Cancel",
        queries.TransactionParameters,
        results.Empty,
        Policy.CANCEL,
        "Stop a transaction that has not reached its commit point.",
    ),
    _query(
        "TransactionLog",
        queries.LogParameters,
        results.LogPage,
        Policy.READ_TRANSACTION,
        "Show what was said while a transaction ran: the whole log of a build.",
    ),
    _query(
        "ListGenerations",
        queries.GenerationsParameters,
        results.Generations,
        Policy.READ,
        "List the generations of the system of a host, with the commits that they were built from.",
    ),
    _query(
        "DiffGenerations",
        queries.DiffGenerationsParameters,
        results.GenerationDifference,
        Policy.READ,
        "Compare two generations: packages, versions, sizes, and the need of a reboot.",
    ),
    _query("Search", queries.SearchParameters, results.Matches, Policy.READ, "Find packages that could be added."),
    _query(
        "RefreshIndex",
        queries.RefreshIndexParameters,
        results.IndexStatus,
        Policy.READ,
        "Build the package index if it is missing.",
    ),
    _query(
        "ListRegistries",
        queries.RegistriesParameters,
        results.RegistryList,
        Policy.READ,
        "List the registries of short names.",
    ),
    _query(
        "RefreshRegistries",
        queries.RegistriesParameters,
        results.RegistryList,
        Policy.READ,
        "Ask the registries for what is new.",
    ),
    _query(
        "ShowRegistry", queries.ShowRegistryParameters, results.RegistryPage, Policy.READ, "Show what a registry lists."
    ),
    _query(
        "GetBundle", queries.BundleParameters, results.Piece, Policy.READ, "Give a piece of a git bundle of the branch."
    ),
    _query(
        "Upload", queries.UploadParameters, results.Received, Policy.READ, "Take a piece of a bundle of commits in."
    ),
    _mutation("Init", mutations.InitParameters, Policy.HOST_MANAGE, "Make the repository, or add a host to it."),
    _mutation("Add", mutations.AddParameters, Policy.INSTALL, "Add packages to a host."),
    _mutation("Remove", mutations.NamesParameters, Policy.REMOVE, "Remove packages from a host."),
    _mutation("Enable", mutations.EnableParameters, Policy.CONFIGURE, "Enable packages of a host."),
    _mutation(
        "Disable", mutations.NamesParameters, Policy.CONFIGURE, "Disable packages of a host and keep their entries."
    ),
    _mutation("Set", mutations.SetParameters, Policy.CONFIGURE, "Change keys of one package of a host."),
    _mutation(
        "Move", mutations.MoveParameters, Policy.CONFIGURE, "Move packages of a host to its system or to a home."
    ),
    _mutation("SetHost", mutations.SetHostParameters, Policy.HOST_MANAGE, "Change settings of a host."),
    _mutation("RemoveHost", mutations.RemoveHostParameters, Policy.HOST_MANAGE, "Take a host out of the repository."),
    _mutation("RenameHost", mutations.RenameHostParameters, Policy.HOST_MANAGE, "Give a host another name."),
    _mutation("Update", mutations.UpdateParameters, Policy.UPDATE, "Lock inputs anew, at their newest revision."),
    _mutation("Adopt", mutations.AdoptParameters, Policy.ADOPT, "Commit what people edited in the work tree."),
    _mutation("Push", mutations.PushParameters, Policy.ADOPT, "Put the commits of a clone on top of the branch."),
    _mutation("Apply", mutations.ApplyParameters, Policy.CONFIGURE, "Make several changes as one, in one commit."),
    _mutation("Rollback", mutations.RollbackParameters, Policy.ROLLBACK, "Undo changes that were made through glixd."),
    _mutation(
        "Rebuild",
        mutations.RebuildParameters,
        Policy.ACTIVATE,
        "Build what is committed for a host, and switch the machine to it.",
    ),
    _mutation(
        "RememberGeneration",
        mutations.RememberGenerationParameters,
        Policy.HOST_MANAGE,
        "Tag the commit that another machine was switched to, as a switch of this one does.",
    ),
    _mutation(
        "CollectGarbage",
        mutations.CollectGarbageParameters,
        Policy.GARBAGE,
        "Delete old generations and what nothing uses.",
    ),
    _mutation(
        "Regenerate",
        mutations.RegenerateParameters,
        Policy.CONFIGURE,
        "Rewrite the managed regions from the manifests.",
    ),
)

OPERATIONS: Final[Mapping[str, Operation]] = {row.name: row for row in _ROWS}
BATCHED: Final = ("Add", "Remove", "Enable", "Disable", "Set", "Move", "SetHost")
"""What a batch may consist of."""


def operation(name: str) -> Operation:
    """The row of that name; raises UnknownOperation."""
    if row := OPERATIONS.get(name):
        return row
    helps = did_you_mean(_spelt_like(name[: LONGEST + 1]), "GetCapabilities lists them.")
    raise InvalidRequest(f"There is no operation {shown(name)}.", code=ErrorCode.UNKNOWN_OPERATION, hint=helps)


@functools.lru_cache(64)
def _spelt_like(name: str) -> list[str]:
    """Remembered, since comparing takes longer than all the rest of an answer, and who asks so will ask again."""
    return near(name, OPERATIONS)


def required(parameters: type[Parameters]) -> list[str]:
    """The parameters that must be given, in the order in which the bus takes them."""
    return [name for name, field in parameters.model_fields.items() if field.is_required()]


def optional(parameters: type[Parameters]) -> list[str]:
    """The parameters that travel by name."""
    return [name for name, field in parameters.model_fields.items() if not field.is_required()]
