"""The whole: the gateway in front, real accounts, real tokens."""

import httpx
import pytest
import websockets.sync.client as websockets

PASSWORD = "vier alte Kutschen im Nebel"


@pytest.fixture(scope="session")
def ann(gateway):
    """A client that is logged in."""
    # The first request waits until the application is up.
    client = httpx.Client(base_url=gateway["http"], timeout=60)
    account = {"username": "ann", "email": "ann@example.com", "password": PASSWORD}
    client.post("/auth/register", json=account).raise_for_status()
    client.headers["Authorization"] = f"Bearer {token(client)}"
    return client


def token(client, **more):
    login = {"grant_type": "password", "username": "ann", "password": PASSWORD} | more
    return client.post("/auth/token", data=login).raise_for_status().json()["access_token"]


def test_a_login_is_the_user_of_the_handler(ann):
    me = ann.get("/me").raise_for_status().json()
    assert (me["name"], me["roles"]) == ("ann", [])
    assert ann.post("/notes", json={"text": "mine"}).status_code == 201
    assert ann.get("/notes").json() == [{"text": "mine"}]
    assert ann.delete(f"/admin/notes/{me['id']}").status_code == 403


def test_nobody_and_forgers_are_refused(gateway, ann):
    for headers in ({}, {"Palisade-Assertion": "forged", "X-Forwarded-User": "u1"}, {"Authorization": "Bearer x"}):
        assert httpx.get(f"{gateway['http']}/me", headers=headers, timeout=60).status_code == 401


def test_a_token_with_scopes_may_do_no_more(gateway, ann):
    narrow = {"Authorization": f"Bearer {token(ann, scope='notes:read')}"}
    assert ann.get("/notes", headers=narrow).status_code == 200
    assert ann.post("/notes", headers=narrow, json={"text": "x"}).status_code == 403


def test_paths_that_are_encoded_and_queries_are_the_same_request(ann):
    # The handler refuses, not the signature.
    assert ann.delete("/admin/notes/a%20b?x=1").json()["code"] == "auth.forbidden"
    assert ann.get("/me?x=%2Fadmin").status_code == 200


def test_a_websocket_knows_its_user(gateway, ann):
    url = gateway["http"].replace("http", "ws") + "/live"
    with websockets.connect(url, additional_headers={"Authorization": ann.headers["Authorization"]}) as socket:
        socket.send("hello")
        assert socket.recv() == "ann: hello"
    with pytest.raises(websockets.InvalidStatus) as refused:
        websockets.connect(url)
    assert refused.value.response.status_code == 401
