"""The same app once logins are the gateway's: one dependency says who asks, and everything else is as it was, holes and all."""

from typing import Annotated

from fastapi import Security
from glued import app
from identity import User, current_user
from main import get_current_user


def caller(user: Annotated[User, Security(current_user)]):
    return {"username": user.name, "role": "admin" if "admin" in user.roles else "user"}


app.dependency_overrides[get_current_user] = caller
