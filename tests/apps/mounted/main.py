"""One small app that learns of its prefix in each way that FastAPI has: by its own `root_path`, from uvicorn, or not at all."""

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse


def make(title: str, **options) -> FastAPI:
    app = FastAPI(title=title, **options)

    @app.get("/")
    def index(request: Request):
        return {"ran": "index", "path": request.scope["path"]}

    @app.get("/admin")
    def admin(request: Request):
        return {"ran": "admin", "path": request.scope["path"]}

    @app.get("/items/")
    def items(request: Request):
        return {"ran": "items", "url": str(request.url)}

    @app.get("/login")
    def login():
        answer = RedirectResponse("/account", status_code=303)
        answer.set_cookie("seen", "1", path="/account")
        return answer

    @app.get("/account")
    def account(request: Request):
        return {"ran": "account", "cookies": request.cookies}

    @app.get("/headers")
    def headers(request: Request):
        return [[name.decode("latin-1"), value.decode("latin-1")] for name, value in request.headers.raw]

    inner = FastAPI(title="Inner")

    @inner.get("/deep")
    def deep():
        return {"ran": "deep"}

    app.mount("/inner", inner)
    return app


app = make("Mounted")
rooted = make("Rooted", root_path="/api")
