"""Define the routes for experiments: start, list, read with results, stop and delete."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request, Response

from genrec.service import examples
from genrec.service.answers import ANSWERS
from genrec.service.experiments import Arm, Experiment
from genrec.service.http import StrictRoute, json_response
from genrec.service.problems import Problem
from genrec.service.routes_admin import PathName
from genrec.service.schemas import ArmIn, ExperimentIn, merge
from genrec.service.service import Service, service_of

router = APIRouter(prefix="/v1", route_class=StrictRoute, tags=["Experiments"])


@router.get("/experiments", responses=ANSWERS["other"])
def list_experiments(request: Request) -> Response:
    """Return all experiments, the oldest first, without their results."""
    service = service_of(request)
    return json_response({"experiments": [_show(service, e) for e in service.experiments.all()]})


@router.get("/experiments/{name}", responses=ANSWERS["other"])
def get_experiment(name: PathName, request: Request) -> Response:
    """Return an experiment with its results.

    `arms` has the lists, the users and the feedback of each arm. `comparisons` compares each arm with the
    first one: the interval may be looked at as often as you like, and `decided` is true from the first
    time on when it excludes 0.
    """
    service = service_of(request)
    experiment = _find(service, name)
    service.recorder.flush()
    found = service.experiments.results(experiment)
    return json_response({**_show(service, experiment), "results": found})


@router.put(
    "/experiments/{name}", responses=ANSWERS["other"], openapi_extra=examples.body("experiment")
)
def put_experiment(name: PathName, asked: ExperimentIn, request: Request) -> Response:
    """Start an experiment. From now on, each user's lists come from the arm of this user.

    A request that names its model, or neither a user nor a session, takes no part. An experiment
    cannot be changed, because its results would mix; stop it, and start another one.
    """
    service = service_of(request)
    arms = tuple(_arm(service, arm) for arm in asked.arms)
    service.scenario(asked.scenario)
    given = Experiment(
        name,
        arms,
        asked.scenario,
        name if asked.salt is None else asked.salt,
        tuple(asked.behaviors or [service.shop.behavior]),
        asked.window_hours,
        asked.planned_users,
        time.time(),
    )
    with service.shop.editing:
        old = service.experiments.get(name)
        if old is not None:
            if old.definition() != given.definition() or not old.running:
                msg = (
                    f"There is an experiment {name!r} that differs from this one or was stopped. "
                    "Choose another name, or delete it first."
                )
                raise Problem(409, msg)
            return json_response(_show(service, old))
        for other in service.experiments.all():
            if other.running and other.scenario == asked.scenario:
                msg = f"The experiment {other.name!r} is running for the same requests. Stop it first."
                raise Problem(409, msg)
        service.experiments.put(given)
    return json_response(_show(service, given))


@router.post("/experiments/{name}/stop", responses=ANSWERS["other"])
def stop_experiment(name: PathName, request: Request) -> Response:
    """Stop an experiment. Requests get the default model again, and the results stay."""
    service = service_of(request)
    with service.shop.editing:
        found = _find(service, name)
        if found.running:
            found = replace(found, stopped=time.time())
            service.experiments.put(found)
    return json_response(_show(service, found))


@router.delete("/experiments/{name}", responses=ANSWERS["other"])
def delete_experiment(name: PathName, request: Request) -> Response:
    """Stop an experiment and forget it. The lists that it showed stay in the store."""
    service = service_of(request)
    with service.shop.editing:
        found = _find(service, name)
        service.experiments.delete(name)
    return json_response({"name": found.name, "deleted": True})


def _find(service: Service, name: str) -> Experiment:
    found = service.experiments.get(name)
    if found is None:
        raise Problem(404, f"There is no experiment {name!r}.")
    return found


def _show(service: Service, experiment: Experiment) -> dict[str, Any]:
    """Return an experiment as values for JSON, with the models that its arms lack."""
    runs = dict.fromkeys(arm.run for arm in experiment.arms)
    missing = [run for run in runs if run not in service.shop.engines]
    return {**experiment.to_dict(), "missing_runs": missing if experiment.running else []}


def _arm(service: Service, asked: ArmIn) -> Arm:
    """Check an arm, and fill in the default model.

    Raises:
        Problem: the model or the scenario is unknown, or nothing can be counted.
        RequestError: an option is invalid.
    """
    engine = service.engine(asked.run)
    if asked.model_role is not None and engine.fallback is None:
        msg = f"Nothing is counted for the model {engine.name!r}. Leave out model_role."
        raise Problem(409, msg)
    options = asked.options.given()
    merge(service.scenario(asked.scenario), options, service.fixed)
    if asked.search is not None:
        service.shop.drawing(engine, counting=asked.model_role is not None)
    how = asked.model_role, asked.search
    return Arm(asked.name, engine.name, asked.weight, asked.scenario, options, *how)
