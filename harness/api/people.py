"""Endpoints for principals, whom an admin declared to be one person, and for the sessions of
the dashboard.
"""

from fastapi import APIRouter

from harness.api.frame.endpoint import CallerParam, endpoint
from harness.api.frame.json_answers import json_answer
from harness.api.frame.request_fields import DeclarationBody, SessionEndBody
from harness.control.operations import dashboard_sessions, people
from harness.control.operations.dashboard_sessions import SignedInSession
from harness.control.operations.people import PersonView
from harness.domain.operations.people import PersonLink
from harness.domain.pagination import Page

router = APIRouter()


@endpoint(router, "GET", "/people")
def list_people(who: CallerParam) -> Page[PersonView]:
    """Lists the principals, with whom each was declared to be: to an admin all, to others those
    that are the caller.
    """
    return json_answer(list(people.list_people(who.ctx, who.actor)))


@endpoint(router, "POST", "/people/{name}/declarations", status=201)
def declare_person(who: CallerParam, name: str, body: DeclarationBody) -> PersonLink:
    """Declares whom a principal is as well, or that he is nobody else here. Needs an admin."""
    if body.person is None:
        return people.separate(who.ctx, who.actor, name, body.reason)
    return people.link(who.ctx, who.actor, name, body.person, body.reason)


@endpoint(router, "GET", "/dashboard-sessions")
def list_dashboard_sessions(who: CallerParam) -> Page[SignedInSession]:
    """Lists who is signed in to the dashboard, the last one first: to an admin all, to others
    the caller's own sessions.
    """
    return json_answer(list(dashboard_sessions.list_open(who.ctx, who.actor)))


@endpoint(router, "POST", "/dashboard-sessions/{session}/end")
def end_dashboard_session(
    who: CallerParam, session: str, body: SessionEndBody
) -> SignedInSession:
    """Ends somebody's session in the dashboard, at once. Needs an admin, unless it is the
    caller's own.
    """
    return dashboard_sessions.end_another(who.ctx, who.actor, session, body.reason)
