"""FastAPI's ways to say whom an operation is for, as its own document writes them down. The handlers check nothing: what protects
them is the gateway, which reads that document.

`VARIANT=looser` is the same application after a deployment that opens things, `VARIANT=stricter` after one that closes some.
"""

import os

from fastapi import APIRouter, Depends, FastAPI, Security, WebSocket
from fastapi.security import APIKeyHeader, HTTPBearer, OAuth2PasswordBearer

VARIANT = os.environ.get("VARIANT", "")
app = FastAPI(title="Operations")
oauth = OAuth2PasswordBearer(
    tokenUrl="/auth/token", scopes={"items:read": "Read items", "items:write": "Write items"}, auto_error=False
)
bearer = HTTPBearer(auto_error=False)
key = APIKeyHeader(name="X-API-Key", auto_error=False)


@app.get("/open")
def open_to_everybody():
    return "open"


@app.get("/me")
def me(_=Depends(bearer)):
    return "me"


if VARIANT == "looser":

    @app.get("/items")
    def items():
        return "items"

else:

    @app.get("/items")
    def items(_=Security(oauth, scopes=["items:read"])):
        return "items"


@app.post("/items")
def make(_=Security(oauth, scopes=["items:read", "items:write"])):
    return "made"


# Declared in this order: FastAPI runs the first for `/items/new`, too.
@app.get("/items/{item}")
def item(item: str, _=Security(oauth, scopes=["items:read"])):
    return f"item {item}"


@app.get("/items/new")
def new():
    return "new"


@app.get("/machines")
def machines(_=Security(key)):
    return "machines"


@app.get("/either")
def either(_=Security(oauth, scopes=["items:read"]), __=Security(key)):
    return "either"


@app.get("/hidden", include_in_schema=False)
def hidden():
    return "hidden"


@app.get("/files/{path:path}")
def files(path: str):
    return f"file {path}"


@app.websocket("/socket")
async def socket(websocket: WebSocket):
    await websocket.accept()
    await websocket.send_text("hello")
    await websocket.close()


if VARIANT == "stricter":

    @app.get("/later")
    def later(_=Depends(bearer)):
        return "later"

    app.router.routes[:] = [route for route in app.router.routes if getattr(route, "path", "") != "/open"]

    @app.get("/open")
    def closed(_=Security(oauth, scopes=["items:read"])):
        return "no longer open"


# What a route of the policy says counts more.
admin = APIRouter(prefix="/admin")


@admin.get("/report")
def report():
    return "report"


app.include_router(admin)
