"""The application's own logins, as FastAPI's tutorial has them: what is to go."""

import os
from datetime import datetime, timedelta, timezone
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException
from fastapi.security import OAuth2PasswordBearer, OAuth2PasswordRequestForm
from jose import JWTError, jwt
from passlib.context import CryptContext

from items import row

KEY = os.environ["APP_SECRET_KEY"]
passwords = CryptContext(schemes=["bcrypt"])
# Not an error of its own: what comes between has another way to know who asks.
bearer = OAuth2PasswordBearer(tokenUrl="token", auto_error=False)
routes = APIRouter()


@routes.post("/token")
def log_in(form: Annotated[OAuth2PasswordRequestForm, Depends()]):
    user = row("SELECT * FROM users WHERE username = ?", form.username)
    if user is None or not passwords.verify(form.password, user["hashed_password"]):
        raise HTTPException(401, "wrong name or password", {"WWW-Authenticate": "Bearer"})
    expires = datetime.now(timezone.utc) + timedelta(minutes=30)
    claims = {"sub": str(user["id"]), "exp": expires, "tenant": f"tenant-{user['id']}"}
    return {"access_token": jwt.encode(claims, KEY, algorithm="HS256"), "token_type": "bearer"}


def current_user(token: Annotated[str | None, Depends(bearer)]) -> int:
    try:
        return int(jwt.decode(token or "", KEY, algorithms=["HS256"])["sub"])
    except (JWTError, KeyError, ValueError):
        raise HTTPException(401, "not logged in", {"WWW-Authenticate": "Bearer"}) from None
