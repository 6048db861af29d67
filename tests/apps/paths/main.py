"""A FastAPI app that says which of its handlers ran, with what: for requests whose path is meant to confuse."""

from uuid import UUID

from fastapi import FastAPI, Request

app = FastAPI(title="Paths", docs_url=None, redoc_url=None, openapi_url=None)
mounted = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
METHODS = ["GET", "POST", "DELETE"]


def ran(handler, **params):
    return {"handler": handler, "params": {name: str(value) for name, value in params.items()}}


@app.api_route("/admin", methods=METHODS)
async def admin():
    return ran("admin")


@app.api_route("/admin/{rest:path}", methods=METHODS)
async def below_admin(rest: str):
    return ran("admin", rest=rest)


@app.api_route("/users/me", methods=METHODS)
async def me():
    return ran("me")


@app.api_route("/users/{user_id}", methods=METHODS)
async def user(user_id: int):
    return ran("user", user_id=user_id)


@app.api_route("/users/{user_id}/delete", methods=METHODS)
async def delete_user(user_id: int):
    return ran("delete", user_id=user_id)


@app.api_route("/items/{item_id}", methods=METHODS)
async def item(item_id: UUID):
    return ran("item", item_id=item_id)


@app.api_route("/names/root", methods=METHODS)
async def root_name():
    return ran("root_name")


@app.api_route("/names/{name}", methods=METHODS)
async def name(name: str):
    return ran("name", name=name)


@app.api_route("/files/{path:path}", methods=METHODS)
async def files(path: str):
    return ran("files", path=path)


@mounted.api_route("/", methods=METHODS)
async def mount_root():
    return ran("mount")


@mounted.api_route("/{rest:path}", methods=METHODS)
async def mount_rest(rest: str):
    return ran("mount", rest=rest)


app.mount("/mount", mounted)


@app.api_route("/{rest:path}", methods=METHODS)
async def anything(request: Request, rest: str):
    return ran("anything", rest=rest, url=request.url.path)
