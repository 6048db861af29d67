"""OAuth clients as they are published, against the gateway: Authlib over httpx. Prints one line of JSON."""

import json
import sys

import httpx
import jwt
from authlib.integrations.httpx_client import OAuth2Client

base, ca, user, password = sys.argv[1:5]
metadata = httpx.get(f"{base}/.well-known/oauth-authorization-server", verify=ca).raise_for_status().json()
seen = {"issuer": metadata["issuer"]}

client = OAuth2Client(token_endpoint=metadata["token_endpoint"], token_endpoint_auth_method="none", verify=ca)
token = client.fetch_token(metadata["token_endpoint"], username=user, password=password, grant_type="password")
seen["password"] = client.get(f"{base}/me").json()

# The documented lines for an application that checks access tokens itself.
keys = jwt.PyJWKSet.from_dict(httpx.get(metadata["jwks_uri"], verify=ca).json())
header = jwt.get_unverified_header(token["access_token"])
claims = jwt.decode(
    token["access_token"],
    keys[header["kid"]],
    algorithms=[header["alg"]],
    audience=metadata["issuer"],
    issuer=metadata["issuer"],
    options={"require": ["exp", "iat", "sub", "jti"]},
)
seen["typ"], seen["alg"], seen["claims"] = header["typ"], header["alg"], claims

refreshed = client.refresh_token(metadata["token_endpoint"], refresh_token=token["refresh_token"])
seen["rotated"] = refreshed["refresh_token"] != token["refresh_token"]
seen["refreshed"] = client.get(f"{base}/me").status_code

revoked = client.revoke_token(metadata["revocation_endpoint"], token=refreshed["refresh_token"])
seen["revoked"] = revoked.status_code
seen["after"] = httpx.get(
    f"{base}/me", headers={"Authorization": f"Bearer {refreshed['access_token']}"}, verify=ca
).status_code
again = httpx.post(
    metadata["token_endpoint"],
    data={"grant_type": "refresh_token", "refresh_token": refreshed["refresh_token"]},
    verify=ca,
)
seen["spent"] = [again.status_code, again.json()["error"]]
wrong = httpx.post(
    metadata["token_endpoint"], data={"grant_type": "password", "username": user, "password": "wrong"}, verify=ca
)
seen["wrong"] = [wrong.status_code, wrong.json()["error"], wrong.json()["code"]]
print(json.dumps(seen))
