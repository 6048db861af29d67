"""What is believed of the gateway's statement: signed by keys of this test, checked by the application's own code."""

import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi.testclient import TestClient

import identity
from main import app

KEY = Ed25519PrivateKey.generate()
STRANGER = Ed25519PrivateKey.generate()
KIND = "palisade-assertion+jwt"


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    public = jwt.algorithms.OKPAlgorithm.to_jwk(KEY.public_key(), as_dict=True)
    monkeypatch.setattr(identity.KEYS, "fetch_data", lambda: {"keys": [public | {"kid": "k", "use": "sig"}]})
    identity.KEYS.jwk_set_cache.put(None)


def status(key=KEY, kid="k", typ=KIND, ask=("GET", "/notes"), headers={}, **claims):
    now = int(time.time())
    said = {"iss": identity.ISSUER, "aud": "upstream", "sub": "u1", "iat": now, "exp": now + 60}
    said |= {"method": "GET", "path": "/notes", "roles": [], "name": "ann"} | claims
    said = {name: value for name, value in said.items() if value is not None}
    assertion = jwt.encode(said, key, algorithm="EdDSA", headers={"kid": kid, "typ": typ})
    return TestClient(app).request(*ask, headers={"Palisade-Assertion": assertion} | headers).status_code


def test_the_genuine_one_passes():
    assert status() == 200
    assert status(path="/admin/notes/a%20b", method="DELETE", roles=["admin"], ask=("DELETE", "/admin/notes/a%20b")) == 200
    assert status(ask=("GET", "/notes?x=%2F")) == 200


@pytest.mark.parametrize(
    "what",
    [
        {"key": STRANGER},
        {"kid": "another"},
        {"typ": "at+jwt"},
        {"typ": "JWT"},
        {"iss": "https://evil.example"},
        {"aud": "billing"},
        {"aud": None},
        {"sub": None},
        {"exp": None},
        {"exp": int(time.time()) - 60},
        {"iat": int(time.time()) + 600},
        {"method": "POST"},
        {"path": "/me"},
        {"ask": ("GET", "/me")},
        {"ask": ("GET", "/no%74es")},
    ],
    ids=str,
)
def test_any_other_is_nobodys(what):
    assert status(**what) == 401


def test_a_narrow_credential_carries_its_scopes_and_nothing_else():
    assert status(narrowed=True, scope="notes:read other") == 200
    assert status(narrowed=True, scope="notes:write") == 403
    assert status(narrowed=True, scope="notes:readx") == 403
    assert status(narrowed=True) == 403
    # An operation that names no scope is none of a key's, whoever's it is.
    path = "/admin/notes/u1"
    administrators = {"method": "DELETE", "path": path, "roles": ["admin"], "ask": ("DELETE", path)}
    assert status(**administrators) == 200
    assert status(**administrators, narrowed=True, scope="notes:read") == 403


def test_with_the_keys_out_of_reach_nobody_is_refused_for_good(monkeypatch):
    def away():
        raise jwt.PyJWKClientConnectionError("away")

    monkeypatch.setattr(identity.KEYS, "fetch_data", away)
    assert status() == 503
