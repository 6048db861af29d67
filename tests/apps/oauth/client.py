"""Authlib as a client that is registered: a code with PKCE through the pages, introspection, a token of its own.

client.py url    BASE CA CLIENT SECRET REDIRECT                        where to send the browser
client.py tokens BASE CA CLIENT SECRET REDIRECT VERIFIER STATE BACK    what follows from where it came back to

Prints one line of JSON.
"""

import json
import sys

import httpx
from authlib.common.security import generate_token
from authlib.integrations.httpx_client import OAuth2Client

step, base, ca, client_id, secret, redirect = sys.argv[1:7]
metadata = httpx.get(f"{base}/.well-known/oauth-authorization-server", verify=ca).raise_for_status().json()


def client(**more):
    return OAuth2Client(
        client_id,
        secret,
        redirect_uri=redirect,
        scope="notes:read",
        code_challenge_method="S256",
        token_endpoint=metadata["token_endpoint"],
        token_endpoint_auth_method="client_secret_basic",
        verify=ca,
        **more,
    )


def url():
    verifier = generate_token(48)
    address, state = client().create_authorization_url(metadata["authorization_endpoint"], code_verifier=verifier)
    return {"url": address, "state": state, "verifier": verifier}


def tokens(verifier, state, back):
    seen = {}
    by_code = client(state=state)
    token = by_code.fetch_token(metadata["token_endpoint"], authorization_response=back, code_verifier=verifier)
    seen["scope"], seen["notes"] = token["scope"], by_code.get(f"{base}/notes").status_code

    def about(text):
        return by_code.introspect_token(metadata["introspection_endpoint"], token=text).json()

    seen["introspected"] = about(token["access_token"])
    refreshed = by_code.refresh_token(metadata["token_endpoint"], refresh_token=token["refresh_token"])
    seen["rotated"] = refreshed["refresh_token"] != token["refresh_token"]
    by_code.revoke_token(metadata["revocation_endpoint"], token=refreshed["refresh_token"]).raise_for_status()
    seen["after"] = about(refreshed["access_token"])

    itself = client()
    own = itself.fetch_token(metadata["token_endpoint"], grant_type="client_credentials", scope="notes:read")
    seen["own"], seen["own_notes"] = about(own["access_token"]), itself.get(f"{base}/notes").status_code
    seen["own_refresh"] = "refresh_token" in own
    return seen


print(json.dumps(url() if step == "url" else tokens(*sys.argv[7:10])))
