"""Who asks, as the gateway proved it."""

import os
from functools import lru_cache
from typing import Annotated

import httpx
import jwt
from fastapi import Header, HTTPException, Request


@lru_cache
def keys() -> jwt.PyJWKSet:
    answer = httpx.get(os.environ["PALISADE_JWKS"], verify=os.environ["PALISADE_CA"])
    return jwt.PyJWKSet.from_dict(answer.raise_for_status().json())


def read(request: Request, assertion: str) -> int:
    claims = jwt.decode(
        assertion,
        keys()[jwt.get_unverified_header(assertion)["kid"]],
        algorithms=["EdDSA"],
        audience="upstream",
        issuer=os.environ["PALISADE_ISSUER"],
    )
    if (claims["method"], claims["path"]) != (request.method, request.url.path):
        raise jwt.InvalidTokenError("an assertion for another request")
    return int(claims["app_id"])


def current_user(request: Request, palisade_assertion: Annotated[str | None, Header()] = None) -> int:
    try:
        return read(request, palisade_assertion or "")
    except (jwt.PyJWTError, KeyError, ValueError):
        raise HTTPException(401, "not logged in") from None
