"""What a job of a cluster asks for, for all stages or for one kind of stage: nodes, GPUs, time. No part of a recipe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError

from robustgen.config.base import Config, Count, Positive
from robustgen.config.parsing import assign, explain
from robustgen.units import parse_duration

Seconds = Annotated[int, BeforeValidator(parse_duration), Field(ge=60)]


class Resources(Config):
    """What one job asks for; None is the cluster's default.

    nodes           machines
    gpus_per_node   GPUs of each; one process per GPU
    tasks_per_node  processes on each node, where they are not as many as GPUs: for nodes without GPUs
    cpus_per_task   cores of each process
    memory_gb       gigabytes of each node
    time            limit in seconds; also written 90m, 12h, 12:00:00 or 1-12:00:00
    setup           shell lines that run before the processes start, such as "module load cuda"
    """

    partition: str | None = None
    nodes: Count = 1
    gpus_per_node: Annotated[int, Field(ge=0)] = 0
    tasks_per_node: Count | None = None
    cpus_per_task: Count | None = None
    memory_gb: Positive | None = None
    time: Seconds = 12 * 3600
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    setup: tuple[str, ...] = ()

    @property
    def processes_per_node(self) -> int:
        return self.tasks_per_node or self.gpus_per_node or 1

    @property
    def processes(self) -> int:
        return self.nodes * self.processes_per_node


@dataclass(frozen=True)
class Cluster:
    """Resources of all stages, and changes for kinds of stages.

    every    of every stage, by name; only what is not the default
    by_kind  changes by the kind of stage, such as "train"
    """

    every: Mapping[str, Any] = field(default_factory=dict)
    by_kind: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def with_changes(self, options: Mapping[str, Any], sets: Iterable[str] = ()) -> Cluster:
        """With the options of a command, and assignments such as "train.nodes=4"; None changes nothing."""
        every = {**self.every, **{name: value for name, value in options.items() if value is not None}}
        content: dict[str, Any] = {**every, **{kind: dict(changes) for kind, changes in self.by_kind.items()}}
        for text in sets:
            place = text.partition("=")[0].strip()
            kind, dot, name = place.rpartition(".")
            if dot and (not kind or kind in Resources.model_fields):
                raise ValueError(
                    f"--set-resources {text}: expected NAME=VALUE or KIND.NAME=VALUE such as train.nodes=4"
                )
            here = content.setdefault(kind, {}) if dot else content
            changed = {known: here.get(known) for known in Resources.model_fields}
            changed["setup"] = list(changed["setup"] or ())
            assign(changed, [text.strip().removeprefix(f"{kind}.")], "train.nodes=4")
            here[name] = changed[name]
        return cluster_of(content, "--set-resources" if sets else "the options")

    def of(self, kind: str, whole: bool) -> Resources:
        """The resources of a kind of stage.

        Args:
            whole: whether it takes all that was asked for; otherwise one process, with one GPU if there are any, unless
                the changes of its kind set a size.
        """
        every, changes = Resources(**self.every), self.by_kind.get(kind, {})
        small: dict[str, Any] = {"nodes": 1, "gpus_per_node": min(1, every.gpus_per_node), "tasks_per_node": 1}
        if whole or small.keys() & changes.keys():
            small = {}
        return Resources(**{**self.every, **small, **changes})


def cluster_of(content: Any, origin: str) -> Cluster:
    """A `cluster:` block: settings of `Resources` for all stages, and the same under kinds of stages.

    Raises:
        ValueError: one line that names the setting, and `origin`.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"{origin}: expected settings by name, got {type(content).__name__}")
    every = {name: value for name, value in content.items() if name in Resources.model_fields}
    by_kind = {name: value for name, value in content.items() if name not in every}
    for name, value in by_kind.items():
        if not isinstance(value, Mapping):
            known = ", ".join(Resources.model_fields)
            raise ValueError(f"{origin}: unknown setting {name}; known: {known}, or the same under a kind of stage")
    for name, value in [("", every), *by_kind.items()]:
        try:
            Resources(**value)
        except ValidationError as error:
            raise ValueError(f"{origin}: {explain(error, str(name))}") from None
    return Cluster(every, by_kind)
