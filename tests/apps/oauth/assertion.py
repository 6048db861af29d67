"""The documented lines for an application: who asks, proved by the gateway's signature. Prints one line of JSON."""

import json
import sys

import httpx
import jwt

base, ca, issuer, method, path, token = sys.argv[1:7]
keys = jwt.PyJWKSet.from_dict(httpx.get(f"{base}/auth/jwks.json", verify=ca).json())


def check(token, method, path):
    header = jwt.get_unverified_header(token)
    if header.get("typ") != "palisade-assertion+jwt":
        return "another kind of token"
    try:
        claims = jwt.decode(
            token,
            keys[header["kid"]],
            algorithms=["EdDSA"],
            audience="upstream",
            issuer=issuer,
            options={"require": ["exp", "iat", "sub", "jti"]},
        )
    except (jwt.PyJWTError, KeyError) as error:
        return type(error).__name__
    if (claims["method"], claims["path"]) != (method, path):
        return "an assertion for another request"
    return claims


print(json.dumps({"claims": check(token, method, path), "elsewhere": check(token, method, "/admin")}))
