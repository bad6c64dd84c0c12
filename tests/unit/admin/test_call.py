from __future__ import annotations

from edge.admin.call import Caller, Refused


def test_a_caller_is_told_by_user_and_process() -> None:
    assert str(Caller(uid=1000, gid=100, pid=4242)) == "uid 1000, pid 4242"


def test_a_refusal_without_a_title_has_that_of_its_status() -> None:
    reply = Refused(404, "", "nothing is here").reply()
    assert reply.document == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "nothing is here",
    }
    assert reply.words == "nothing is here"


def test_a_refusal_with_a_title_is_a_type_of_its_own_and_keeps_its_members() -> None:
    faults = [{"path": "url[3]"}]
    refused = Refused(422, "Bad scopes", "1 scope is bad", {"faults": faults, "status": 9})
    reply = refused.reply()
    assert reply.document["type"] == "urn:edge:bad-scopes"
    assert (reply.document["status"], reply.document["faults"]) == (422, faults)
