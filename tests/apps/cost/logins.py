"""A login with bcrypt through passlib, as the guide and FastAPI's own tutorial have it: in an async and in a sync handler.

Beside it a route that does nothing, to see what it suffers.
"""

from typing import Annotated

from fastapi import FastAPI, Form, HTTPException
from passlib.context import CryptContext

app = FastAPI()
pwd_context = CryptContext(schemes=["bcrypt"], deprecated="auto")
HASH = pwd_context.hash("vier alte Kutschen im Nebel")


def check(password: str) -> dict:
    if not pwd_context.verify(password, HASH):
        raise HTTPException(400)
    return {"access_token": "x", "token_type": "bearer"}


@app.post("/async/token")
async def in_the_loop(password: Annotated[str, Form()]):
    return check(password)


@app.post("/sync/token")
def in_a_thread(password: Annotated[str, Form()]):
    return check(password)


@app.get("/")
async def other():
    return {"id": 4711, "text": "n" * 170}
