"""Ask a running service to do what its operators do: models, experiments, blocks, results, export.

These methods need a key with the scope ``admin``, except where they only read models or scenarios.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any
from urllib.parse import quote

from genrec.service.client_types import (
    Acceptance,
    Blocks,
    ExperimentArm,
    RunningExperiment,
    ServedModels,
    Shop,
)
from genrec.service.connection import Connection, ServiceError
from genrec.taste.edits import ProfileEdits


class Operations(Connection):
    """The part of ``genrec.Client`` for operators."""

    def shop(self) -> Shop:
        """Return what the service says about its shop."""
        return Shop.of(self._send("GET", "/v1/shop"))

    # Models

    def models(self) -> ServedModels:
        """Return the models that are loaded, and the runs that can be loaded."""
        return ServedModels.of(self._send("GET", "/v1/models"))

    def load_model(self, name: str) -> ServedModels:
        """Load a run from the folder of the runs, or load it again."""
        return ServedModels.of(self._send("POST", f"/v1/models/{_named(name)}"))

    def unload_model(self, name: str) -> ServedModels:
        """Unload a model that is neither the default one nor in an experiment."""
        return ServedModels.of(self._send("DELETE", f"/v1/models/{_named(name)}"))

    def choose_model(self, name: str) -> ServedModels:
        """Let a loaded model answer requests that name none."""
        return ServedModels.of(self._send("PUT", "/v1/models/default", {"name": name}))

    # Scenarios and the block list

    def scenarios(self) -> dict[str, dict[str, Any]]:
        """Return the options of each scenario, keyed by its name."""
        found: dict[str, dict[str, Any]] = self._send("GET", "/v1/scenarios")["scenarios"]
        return found

    def put_scenario(self, name: str, **options: Any) -> dict[str, Any]:
        """Create or replace a scenario.

        Args:
            name: the name that requests use.
            **options: fields of ``QueryOptions`` except ``stock``.

        Returns:
            The options that were stored.
        """
        found: dict[str, Any] = self._send("PUT", f"/v1/scenarios/{_named(name)}", options)[
            "options"
        ]
        return found

    def delete_scenario(self, name: str) -> None:
        """Delete a scenario."""
        self._send("DELETE", f"/v1/scenarios/{_named(name)}")

    def blocks(self) -> Blocks:
        """Return the block list."""
        return Blocks.of(self._send("GET", "/v1/blocks"))

    def put_blocks(
        self,
        item_ids: Sequence[str] = (),
        conditions: Sequence[str] = (),
        phrases: Sequence[str] = (),
    ) -> Blocks:
        """Replace the block list, and return it with the number of items that are blocked now.

        Args:
            item_ids: ids of items.
            conditions: conditions as in the option ``where``.
            phrases: words in a row in a title, in any case.
        """
        entries = {"item_ids": item_ids, "conditions": conditions, "phrases": phrases}
        body = {name: list(values) for name, values in entries.items()}
        return Blocks.of(self._send("PUT", "/v1/blocks", body))

    # Experiments

    def experiments(self) -> list[RunningExperiment]:
        """Return all experiments, the oldest first, without their results."""
        found = self._send("GET", "/v1/experiments")["experiments"]
        return [RunningExperiment.of(one) for one in found]

    def experiment(self, name: str) -> RunningExperiment:
        """Return an experiment with its results."""
        return RunningExperiment.of(self._send("GET", f"/v1/experiments/{_named(name)}"))

    def put_experiment(
        self,
        name: str,
        arms: Sequence[ExperimentArm | Mapping[str, Any]],
        *,
        scenario: str | None = None,
        behaviors: Sequence[str] | None = None,
        window_hours: float | None = None,
        planned_users: int | None = None,
        salt: str | None = None,
    ) -> RunningExperiment:
        """Start an experiment. From now on, each user's lists come from the arm of this user.

        Args:
            name: its name.
            arms: two to ten arms; the others are compared with the first one.
            scenario: only requests with this scenario take part; None for those whose scenario has
                no experiment of its own.
            behaviors: the feedback that counts as accepting a list; None for the target behavior.
            window_hours: how long after a user's first list its lists and feedback count in the
                comparison; None for 24.
            planned_users: the number of users at which the intervals are tightest; None for 2,000.
            salt: the text that is hashed with the id of a user; None for the name.

        Raises:
            InvalidRequestError: an arm or an option is not valid.
            ServiceError: there is another experiment of this name or for the same requests.
        """
        given = {
            "scenario": scenario,
            "behaviors": None if behaviors is None else list(behaviors),
            "window_hours": window_hours,
            "planned_users": planned_users,
            "salt": salt,
        }
        body: dict[str, Any] = {n: v for n, v in given.items() if v is not None}
        body["arms"] = [_arm(arm) for arm in arms]
        return RunningExperiment.of(self._send("PUT", f"/v1/experiments/{_named(name)}", body))

    def stop_experiment(self, name: str) -> RunningExperiment:
        """Stop an experiment. Its results stay."""
        return RunningExperiment.of(self._send("POST", f"/v1/experiments/{_named(name)}/stop"))

    def delete_experiment(self, name: str) -> None:
        """Stop an experiment and forget it. The lists that it showed stay in the store."""
        self._send("DELETE", f"/v1/experiments/{_named(name)}")

    # Results

    def acceptance(
        self, by: str = "scenario", behaviors: Sequence[str] = (), experiment: str | None = None
    ) -> list[Acceptance]:
        """Count how often shown items were followed by feedback that names their list.

        Args:
            by: what to group by: ``scenario``, ``run``, ``arm`` or ``rank``.
            behaviors: the behaviors that count; empty for all.
            experiment: only lists of this experiment; None for all.
        """
        query = {"by": by, "behaviors": ",".join(behaviors), "experiment": experiment or ""}
        found = self._send("GET", "/v1/acceptance", query=query)["groups"]
        return [Acceptance.of(group) for group in found]

    def export(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield everything that came after the dataset: the name of a table and one of its rows.

        Raises:
            ServiceError: the export ended before it was complete.
        """
        for line in self._lines("GET", "/v1/export"):
            row = json.loads(line)
            table = row.pop("table")
            if table == "end":
                return
            yield table, row
        msg = "The export is not complete. Expected the last line to say so. Ask again."
        raise ServiceError(msg)

    # Profiles

    def profile(self, user_id: str) -> dict[str, Any]:
        """Return what a user's events say about their taste; see the command ``profile`` in the reference.

        Raises:
            InvalidRequestError: the service knows nothing about such a user.
        """
        found: dict[str, Any] = self._send("GET", "/v1/user/profile", query={"id": user_id})
        return found

    def put_profile(self, user_id: str, edits: ProfileEdits) -> ProfileEdits:
        """Store the corrections of a user's profile in place of earlier ones; the next list follows them."""
        return self._edit_profile("PUT", user_id, edits.to_dict())

    def patch_profile(self, user_id: str, **lists: Sequence[str]) -> ProfileEdits:
        """Replace some of the lists ``added``, ``removed`` and ``banned``, and return all."""
        return self._edit_profile("PATCH", user_id, {n: list(k) for n, k in lists.items()})

    def _edit_profile(self, method: str, user_id: str, body: Mapping[str, Any]) -> ProfileEdits:
        answer = self._send(method, "/v1/user/profile", body, query={"id": user_id})
        return ProfileEdits.of(answer["edits"])


def _named(name: str) -> str:
    """Return a name as part of a path."""
    return quote(name, safe="")


def _arm(given: ExperimentArm | Mapping[str, Any]) -> dict[str, Any]:
    values = asdict(given) if isinstance(given, ExperimentArm) else dict(given)
    return {n: v for n, v in values.items() if v is not None}
