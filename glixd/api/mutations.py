# SPDX-License-Identifier: GPL-3.0-or-later
"""What a caller may say to the operations that start a transaction."""

# Annotations are values here: as text, pydantic would compile each of them when the model is made.
from enum import StrEnum
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from glixd.api.forms import imported_files, package_changes, setting_changes, single_name, user_of_a_home
from glixd.api.grammar import (
    DAYS,
    PROFILE,
    Changes,
    CommitName,
    HostName,
    ImportedFiles,
    InputName,
    Line,
    PackageName,
    Parameters,
    Reference,
    Scope,
    System,
    TransactionId,
    UploadName,
    UserName,
    matching,
)
from glixd.errors import invalid
from glixd.protocol import MAX_GENERATION, MAX_IMPORTED_FILES, MAX_REFERENCES, PAGE_SIZE


class MutationParameters(Parameters):
    """What every mutation understands."""

    host: HostName | None = Field(None, description="The host to change; by default the machine of the daemon.")
    dry_run: bool = Field(False, description="Do everything but the commit, and answer with the diff.")
    evaluate: bool = Field(True, description="Evaluate the configuration of the host with the change.")
    interactive: bool = Field(False, description="Whether the caller may be asked for a password.")
    reason: Line | None = Field(None, description="Why, in one line; it becomes part of the commit message.")
    apply: bool = Field(False, description="Build the committed configuration and switch the machine to it afterwards.")


class Consenting(MutationParameters):
    """What a caller may consent to."""

    allow_unfree: bool = Field(False, description="Consent to packages with an unfree licence.")
    allow_insecure: bool = Field(False, description="Consent to packages with known vulnerabilities.")
    allow_broken: bool = Field(False, description="Consent to packages that are marked as broken.")


class InitParameters(MutationParameters):
    """The host to add, and where a new repository takes its inputs from."""

    user: UserName | None = Field(None, description="The primary user of the host; by default the caller.")
    system: System | None = Field(
        None, description="The Nix system of the host; by default that of the daemon's machine."
    )
    profile: Annotated[str, matching(PROFILE, "the name of a profile")] = Field(
        "minimal", description="What kind of machine it is: minimal, or desktop for a graphical one."
    )
    nixpkgs: Reference | None = Field(None, description="Flake URL of nixpkgs, for a new repository.")
    core: Reference | None = Field(None, description="Flake URL of glixos-core, for a new repository.")
    home_manager: Reference | None = Field(
        None, description="Flake URL of home-manager, or `none`, for a new repository."
    )
    files: Annotated[ImportedFiles, AfterValidator(imported_files)] = Field(
        {},
        max_length=MAX_IMPORTED_FILES,
        description="The text files of a folder such as /etc/nixos, by path: the host becomes what they say, and is refused "
        "where it would evaluate to another system than they do alone.",
    )

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.files and self.profile != "minimal":
            raise invalid("profile", "the files that are taken over say themselves what kind of machine it is")
        return self


class AddParameters(Consenting):
    """What to add, and how."""

    refs: tuple[Reference, ...] = Field(
        min_length=1, max_length=MAX_REFERENCES, description="Names or flake references."
    )
    scope: Annotated[Scope, Field(strict=False)] | None = Field(
        None, description="system or home; by default that of the host."
    )
    user: UserName | None = Field(None, description="Whose home; by default the primary user. Means scope home.")
    pin: Reference | None = Field(None, description="A commit, tag or branch to stay on.")
    name: PackageName | None = Field(None, description="What the manifest calls it; only with a single reference.")
    follows: bool = Field(True, description="Let the input follow the host's nixpkgs.")
    allow_local: bool = Field(False, description="Consent to an absolute local path.")

    @model_validator(mode="after")
    def _together(self) -> Self:
        single_name(self.refs, self.name)
        user_of_a_home(self.scope, self.user)
        return self


class NamesParameters(MutationParameters):
    """Which packages of the host."""

    names: tuple[PackageName, ...] = Field(
        min_length=1, max_length=MAX_REFERENCES, description="Packages of the manifest."
    )


class EnableParameters(NamesParameters, Consenting):
    """Which packages of the host, and what the caller consents to."""


class SetParameters(Consenting):
    """Which package to change, and how."""

    name: PackageName = Field(description="The package, as the manifest calls it.")
    changes: Annotated[Changes, AfterValidator(package_changes)] = Field(
        min_length=1,
        max_length=MAX_REFERENCES,
        description="New values by key: flake, scope, enabled, pin, user, follows, config.NAME. An empty value clears the key.",
    )
    allow_local: bool = Field(False, description="Consent to an absolute local path.")


class MoveParameters(NamesParameters):
    """Which packages to move, and where to."""

    scope: Annotated[Scope, Field(strict=False)] = Field(Scope.SYSTEM, description="system, or home.")
    user: UserName | None = Field(None, description="Whose home; by default the primary user. Means scope home.")


class SetHostParameters(MutationParameters):
    """Which settings of the host to change."""

    changes: Annotated[Changes, AfterValidator(setting_changes)] = Field(
        min_length=1,
        max_length=MAX_REFERENCES,
        description="New values by key: system, primary_user, default_scope, state_version, auto_apply, registry_url, "
        "core_modules. An empty value clears the key.",
    )


class RemoveHostParameters(MutationParameters):
    """Which host to take out."""

    name: HostName = Field(description="The host to take out, with everything in its folder.")


class RenameHostParameters(RemoveHostParameters):
    """Which host to rename."""

    name: HostName = Field(description="The host to rename.")
    to: HostName = Field(description="Its new name.")


class UpdateParameters(MutationParameters):
    """Which inputs to update."""

    inputs: tuple[InputName, ...] = Field(
        (), max_length=MAX_REFERENCES, description="Inputs, or packages that come from one; none means all inputs."
    )
    unattended: bool = Field(
        False,
        description="By the settings auto_update…: commit only what builds for this machine, then stage it or switch.",
    )


class AdoptParameters(MutationParameters):
    """Which edits to commit."""

    message: Line | None = Field(None, description="What the edits are about; it becomes part of the commit message.")
    everything: bool = Field(
        False, description="Commit the edits of every file that git tracks, not only of managed ones."
    )


class PushParameters(MutationParameters):
    """Which commits to put on top of the branch."""

    upload: UploadName = Field(description="The upload that holds a bundle of them, from Upload.")


class ApplyParameters(MutationParameters):
    """Several changes as one."""

    operations: tuple[dict[str, object], ...] = Field(
        min_length=1,
        max_length=MAX_REFERENCES,
        description="One after the other: `operation` is Add, Remove, Enable, Disable, Set, Move or SetHost, "
        "beside its own parameters.",
    )


class Action(StrEnum):
    """What becomes of a committed configuration."""

    SWITCH = "switch"
    BOOT = "boot"
    TEST = "test"
    BUILD = "build"
    DRY_BUILD = "dry-build"
    DRY_ACTIVATE = "dry-activate"

    @property
    def activates(self) -> bool:
        """Whether the running machine, or what it boots next, becomes another one."""
        return self in (Action.SWITCH, Action.BOOT, Action.TEST)

    @property
    def sets_profile(self) -> bool:
        """Whether there is a new generation afterwards."""
        return self in (Action.SWITCH, Action.BOOT)


class RebuildParameters(MutationParameters):
    """What to build, and what to do with it."""

    action: Annotated[Action, Field(strict=False)] = Field(
        Action.SWITCH,
        description="switch: make it the running system; boot: from the next boot on; test: until the next boot; build: "
        "only build it; dry-build: say what would be built; dry-activate: build it and say what would change.",
    )
    keep_going_without: bool = Field(
        False, description="Where packages of the manifest break the evaluation, disable them in a commit and go on."
    )
    home: bool = Field(
        False, description="Build the caller's own home instead of the system; the caller puts it into effect."
    )
    rollback_on_failure: bool | None = Field(
        None, description="Go back to the generation before where the activation fails; by default as configured."
    )


class RollbackParameters(MutationParameters):
    """How far to go back."""

    steps: int | None = Field(None, ge=1, le=PAGE_SIZE, description="How many changes to undo; by default one.")
    to_commit: CommitName | None = Field(None, description="Undo every change after this commit.")
    to_generation: int | None = Field(
        None,
        ge=1,
        le=MAX_GENERATION,
        description="Go back to this generation of the host: its manifest, and the system as it was built then.",
    )
    boot: bool = Field(False, description="With to_generation: switch at the next boot and not now.")

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.steps is not None and self.to_commit is not None:
            raise invalid("steps", "it can't be combined with to_commit", others=("to_commit",))
        return self


class RememberGenerationParameters(MutationParameters):
    """Which generation a machine became, with what a transaction built."""

    build: TransactionId = Field(description="The transaction that built its system.")
    generation: int = Field(ge=1, le=MAX_GENERATION, description="The number of the generation, on that machine.")


class CollectGarbageParameters(MutationParameters):
    """Which old generations go before what nothing uses is deleted; by default none."""

    keep: int | None = Field(None, ge=1, le=PAGE_SIZE, description="Delete all but the newest so many of each profile.")
    older_than: Annotated[str, matching(DAYS, "a number of days, such as 30d")] | None = Field(
        None, description="Delete those that have not been in use for so long, such as 30d."
    )
    delete_old: bool = Field(False, description="Delete all but the current one of each profile.")

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.delete_old and (self.keep or self.older_than):
            raise invalid(
                "delete_old",
                "it can't be combined with keep or older_than, which spare some old generations",
                others=("keep", "older_than"),
            )
        return self


class RegenerateParameters(MutationParameters):
    """Nothing beyond what every mutation takes."""
