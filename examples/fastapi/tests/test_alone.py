"""The handlers by themselves: no gateway, the user is whoever a test says."""

import pytest
from fastapi.testclient import TestClient

from identity import User, current_user
from main import app


@pytest.fixture
def client():
    app.dependency_overrides[current_user] = lambda: User("u1", "ann", roles=frozenset({"admin"}))
    yield TestClient(app)
    app.dependency_overrides.clear()


def test_notes_are_the_users(client):
    assert client.post("/notes", json={"text": "mine"}).status_code == 201
    assert client.get("/notes").json() == [{"text": "mine"}]


def test_dependencies_that_build_on_it(client):
    assert client.delete("/admin/notes/u1").json() == {"message": "notes of u1 deleted by ann"}
    app.dependency_overrides[current_user] = lambda: User("u2", "bob")
    assert client.delete("/admin/notes/u1").status_code == 403


def test_a_websocket_has_the_user_too(client):
    with client.websocket_connect("/live") as socket:
        socket.send_text("hello")
        assert socket.receive_text() == "ann: hello"


def test_without_the_gateway_nobody_is_somebody():
    client = TestClient(app)
    forged = {"X-Forwarded-User": "u1", "X-Forwarded-Roles": "admin", "Palisade-Assertion": "forged"}
    for headers in ({}, forged, {"Authorization": "Bearer of-somebody"}):
        for method, path in [("GET", "/me"), ("GET", "/notes"), ("POST", "/notes"), ("DELETE", "/admin/notes/u1")]:
            answer = client.request(method, path, headers=headers, json={"text": "x"} if method == "POST" else None)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), (path, headers)
    assert client.get("/").status_code == 200


def test_the_document_has_the_scheme_and_the_scopes():
    document = TestClient(app).get("/openapi.json").json()
    flow = document["components"]["securitySchemes"]["Palisade"]["flows"]["password"]
    assert flow["tokenUrl"] == "/auth/token"
    assert sorted(flow["scopes"]) == ["notes:read", "notes:write"]
    assert document["paths"]["/notes"]["post"]["security"] == [{"Palisade": ["notes:write"]}]
    assert document["paths"]["/me"]["get"]["security"] == [{"Palisade": []}]
    assert "security" not in document["paths"]["/"]["get"]
