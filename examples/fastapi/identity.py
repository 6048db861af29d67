"""Who asks: what the gateway established, as a FastAPI dependency.

Palisade logs people in and checks tokens, sessions and keys. What arrives here is its signed statement about the caller,
the header `Palisade-Assertion`, for this application, this method and this path, good for a minute. Nobody else can make
one, so it does not matter how a request reached the application.
"""

import os
from dataclasses import dataclass
from typing import Annotated

import jwt
from fastapi import HTTPException, Security
from fastapi.requests import HTTPConnection
from fastapi.security import OAuth2PasswordBearer, SecurityScopes

# An application that `palisade serve` starts is told both; one that runs elsewhere needs the first.
ISSUER = os.environ.get("PALISADE_ISSUER", "https://localhost:8443")
KEYS = jwt.PyJWKClient(os.environ.get("PALISADE_JWKS", f"{ISSUER}/auth/jwks.json"), timeout=5)


class Palisade(OAuth2PasswordBearer):
    """FastAPI's scheme, for the document and its Authorize button; in a WebSocket's handshake too."""

    async def __call__(self, connection: HTTPConnection) -> str | None:
        return connection.headers.get("Palisade-Assertion")


scheme = Palisade(
    tokenUrl="/auth/token", scopes={"notes:read": "Read one's notes", "notes:write": "Write notes"}, auto_error=False
)


@dataclass(frozen=True)
class User:
    """Somebody who is logged in, or a machine."""

    id: str
    name: str | None = None
    email: str | None = None
    roles: frozenset[str] = frozenset()


def current_user(
    needed: SecurityScopes, connection: HTTPConnection, assertion: Annotated[str | None, Security(scheme)]
) -> User:
    """The caller, with the scopes that the operation names. 401 for nobody, 403 for a credential without a scope."""
    try:
        key = KEYS.get_signing_key_from_jwt(assertion or "")
        proved = jwt.decode_complete(
            assertion,
            key,
            algorithms=["EdDSA"],
            issuer=ISSUER,
            audience="upstream",  # or the NAME of `[upstreams.NAME]`
            leeway=5,
            options={"require": ["exp", "iat", "sub"]},
        )
    except jwt.PyJWKClientConnectionError as error:
        raise HTTPException(503, "the gateway's keys cannot be read just now") from error
    except jwt.PyJWTError as error:
        raise nobody() from error
    claims = proved["payload"]
    if proved["header"].get("typ") != "palisade-assertion+jwt" or not is_about(claims, connection.scope):
        raise nobody()
    # A token with scopes and an API key pass only where an operation names scopes that they have; a session stands for
    # its user.
    has = set(claims.get("scope", "").split())
    if claims.get("narrowed") and not (needed.scopes and set(needed.scopes) <= has):
        raise HTTPException(403, "the credential lacks a scope")
    return User(claims["sub"], claims.get("name"), claims.get("email"), frozenset(claims.get("roles", ())))


def is_about(claims: dict, scope: dict) -> bool:
    """Whether it was made for this method and path, as they came; a prefix that the server added does not count."""
    path = scope["raw_path"].decode("ascii")
    root = scope.get("app_root_path", scope.get("root_path", ""))
    return claims["method"] == scope.get("method", "GET") and claims["path"] in (path, path.removeprefix(root))


def nobody() -> HTTPException:
    return HTTPException(401, "not authenticated", headers={"WWW-Authenticate": "Bearer"})


def administrator(user: Annotated[User, Security(current_user)]) -> User:
    """Dependencies build on each other as ever."""
    if "admin" not in user.roles:
        raise HTTPException(403, "for administrators")
    return user
