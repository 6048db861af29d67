"""An API that knows its callers by what the gateway hands over, and has FastAPI's own Authorize button."""

from fastapi import Depends, FastAPI, Header, Request
from fastapi.security import OAuth2PasswordBearer

app = FastAPI(title="Identity")

# For the documentation's page only: the token is checked by the gateway and ends there.
authorize = OAuth2PasswordBearer(tokenUrl="/auth/token", auto_error=False)


@app.get("/me")
def me(
    _: str | None = Depends(authorize),
    x_forwarded_user: str | None = Header(default=None),
    x_forwarded_name: str | None = Header(default=None),
):
    return {"id": x_forwarded_user, "name": x_forwarded_name}


@app.get("/admin/secret")
def secret():
    return {"secret": "for administrators"}


@app.api_route("/echo", methods=["GET", "POST"])
async def echo(request: Request):
    return {"headers": [[name, value] for name, value in request.headers.items()]}


@app.get("/notes")
def notes():
    return []
