"""Define the routes for operators: models, scenarios, the block list, acceptance and export."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from starlette.responses import StreamingResponse

from genrec.service import examples
from genrec.service.answers import ANSWERS
from genrec.service.http import StrictRoute, json_response
from genrec.service.outcomes import acceptance as count_acceptance
from genrec.service.problems import Problem
from genrec.service.schemas import Blocks, DefaultModel, Options, merge
from genrec.service.service import Service, service_of
from genrec.service.tables import StoreError

router = APIRouter(prefix="/v1", route_class=StrictRoute, tags=["Operate"])

PathName = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
_ACCEPTED = re.compile(r"[^,\x00-\x1f]{1,100}")


# Models


def _models(service: Service) -> list[dict[str, Any]]:
    found = []
    for name, engine in service.shop.engines.items():
        recommender = engine.recommender
        fusion = recommender.fusing
        found.append(
            {
                "name": name,
                "default": name == service.shop.default,
                "model": recommender.model.name,
                "role": fusion.role,
                "prior": fusion.prior,
                "behavior": recommender.behavior,
                "fallback": engine.fallback is not None,
            }
        )
    return found


@router.get("/models", responses=ANSWERS["other"])
def list_models(request: Request) -> Response:
    """List the loaded models, and the names of the runs that can be loaded."""
    service = service_of(request)
    return json_response({"models": _models(service), "loadable": service.loadable})


@router.put("/models/default", responses=ANSWERS["other"], openapi_extra=examples.body("default"))
def choose_model(asked: DefaultModel, request: Request) -> Response:
    """Choose the model that answers if a request names none. Running requests are not disturbed."""
    service = service_of(request)
    try:
        service.shop.choose(asked.name)
    except KeyError:
        raise Problem(404, f"The model {asked.name!r} is not loaded. Load it first.") from None
    return json_response({"models": _models(service), "loadable": service.loadable})


@router.post("/models/{name}", responses=ANSWERS["other"])
def load_model(name: PathName, request: Request) -> Response:
    """Load a run from the folder that the operator named with `--runs`, or load it again."""
    service = service_of(request)
    service.load_run(name)
    return json_response({"models": _models(service), "loadable": service.loadable})


@router.delete("/models/{name}", responses=ANSWERS["other"])
def unload_model(name: PathName, request: Request) -> Response:
    """Unload a model that is neither the default one nor in an experiment. Running requests finish."""
    service = service_of(request)
    used = [
        e.name for e in service.experiments.all() if e.running and name in {a.run for a in e.arms}
    ]
    if used:
        raise Problem(409, f"The experiment {used[0]!r} uses the model {name!r}. Stop it first.")
    try:
        service.shop.remove(name)
    except KeyError:
        raise Problem(404, f"The model {name!r} is not loaded.") from None
    return json_response({"models": _models(service), "loadable": service.loadable})


# Scenarios


@router.get("/scenarios", responses=ANSWERS["other"])
def list_scenarios(request: Request) -> Response:
    """Return all scenarios, which are named options such as those of a home page."""
    return json_response({"scenarios": service_of(request).shop.store.scenarios()})


@router.put(
    "/scenarios/{name}", responses=ANSWERS["other"], openapi_extra=examples.body("scenario")
)
def put_scenario(name: PathName, asked: Options, request: Request) -> Response:
    """Create or replace a scenario. Requests that name it use its options as defaults."""
    service, options = service_of(request), asked.given()
    merge({}, options, service.fixed)
    service.shop.store.put_scenario(name, options)
    return json_response({"name": name, "options": options})


@router.delete("/scenarios/{name}", responses=ANSWERS["other"])
def delete_scenario(name: PathName, request: Request) -> Response:
    """Delete a scenario."""
    if not service_of(request).shop.store.put_scenario(name, None):
        raise Problem(404, f"There is no scenario {name!r}.")
    return json_response({"name": name, "options": None})


# The block list


@router.get("/blocks", responses=ANSWERS["other"])
def get_blocks(request: Request) -> Response:
    """Return the block list."""
    return json_response({k: list(v) for k, v in service_of(request).shop.blocks.items()})


@router.put("/blocks", responses=ANSWERS["other"], openapi_extra=examples.body("blocks"))
def put_blocks(asked: Blocks, request: Request) -> Response:
    """Replace the block list. No answer after this one offers a blocked item."""
    blocked = service_of(request).shop.block(asked.model_dump())
    return json_response({**asked.model_dump(), "blocked": blocked})


# Results


@router.get("/acceptance", responses=ANSWERS["other"])
def acceptance(
    request: Request,
    by: Annotated[
        str, Query(pattern="^(scenario|run|arm|rank)$", description="What to group by.")
    ] = "scenario",
    behaviors: Annotated[
        str,
        Query(max_length=1000, description="Behaviors that count, with commas; all if left out."),
    ] = "",
    experiment: Annotated[
        str, Query(max_length=64, description="Only lists of this experiment; all if left out.")
    ] = "",
) -> Response:
    """Count how often shown items were followed by feedback that names their list.

    `per_user` is the mean over users of their share of accepted lists, with an interval in which users
    are the unit. `behaviors` counts each behavior apart.
    """
    service = service_of(request)
    wanted = [b.strip() for b in behaviors.split(",") if b.strip()]
    if any(_ACCEPTED.fullmatch(b) is None for b in wanted):
        raise Problem(422, "behaviors is not valid. Expected names with commas between them.")
    service.recorder.flush()
    groups = count_acceptance(service.shop.store, by, wanted, experiment or None)
    return json_response({"by": by, "behaviors": wanted, "groups": groups})


@router.get(
    "/export",
    responses=ANSWERS["other"] | {200: {"content": {"application/x-ndjson": {}}}},
    response_class=StreamingResponse,
)
def export(request: Request) -> Response:
    """Return everything that came after the dataset, as one JSON object per line.

    Each line names its `table`: items, events, users, scenarios, blocks, lists, impressions,
    experiments, deleted_users or deleted_events. The last line is `{"table": "end"}`; without it, the export is not complete.
    """
    service = service_of(request)
    service.recorder.flush()

    def lines() -> Iterator[str]:
        try:
            for table, row in service.shop.store.export():
                yield json.dumps({"table": table, **row}) + "\n"
            yield '{"table": "end"}\n'
        except StoreError:
            return

    return StreamingResponse(lines(), media_type="application/x-ndjson")
