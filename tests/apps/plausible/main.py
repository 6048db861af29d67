"""A plausible FastAPI app: what people build, in the way the documentation shows, with no thought of a gateway.

It uses every feature of HTTP that a proxy can get wrong. Nothing in it may ever be changed to please the gateway: if it works
in uvicorn alone, it has to work behind.
"""

import asyncio
import hashlib
import os
import time
from collections import Counter
from datetime import datetime, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Annotated
from uuid import UUID, uuid4

from fastapi import (
    Cookie,
    FastAPI,
    Form,
    Header,
    HTTPException,
    Query,
    Request,
    Response,
    UploadFile,
    WebSocket,
    WebSocketDisconnect,
)
from fastapi.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    StreamingResponse,
)
from pydantic import BaseModel, Field

GIB = 1 << 30

app = FastAPI(title="Plausible", version="1.0.0")


# Notes: pydantic models, the usual five operations.


class NoteIn(BaseModel):
    title: str = Field(min_length=1, max_length=200)
    text: str = ""
    tags: list[str] = Field(default_factory=list, max_length=20)


class Note(NoteIn):
    id: UUID
    created: datetime


notes: dict[UUID, Note] = {}


@app.post("/notes", status_code=201)
async def create_note(note: NoteIn, request: Request, response: Response) -> Note:
    stored = Note(id=uuid4(), created=datetime.now(timezone.utc), **note.model_dump())
    notes[stored.id] = stored
    response.headers["Location"] = str(request.url_for("read_note", note_id=stored.id))
    return stored


@app.get("/notes")
async def list_notes(tag: str | None = None, limit: Annotated[int, Query(ge=1, le=100)] = 20) -> list[Note]:
    return [note for note in notes.values() if tag is None or tag in note.tags][:limit]


@app.get("/notes/{note_id}", name="read_note")
async def read_note(note_id: UUID) -> Note:
    if note_id not in notes:
        raise HTTPException(404, "no such note")
    return notes[note_id]


@app.put("/notes/{note_id}")
async def replace_note(note_id: UUID, note: NoteIn) -> Note:
    if note_id not in notes:
        raise HTTPException(404, "no such note")
    notes[note_id] = Note(id=note_id, created=notes[note_id].created, **note.model_dump())
    return notes[note_id]


@app.delete("/notes/{note_id}", status_code=204)
async def delete_note(note_id: UUID) -> None:
    if notes.pop(note_id, None) is None:
        raise HTTPException(404, "no such note")


# Streams.


gates: dict[str, asyncio.Semaphore] = {}


@app.post("/gate/{name}", status_code=202)
async def let_one_pass(name: str) -> dict:
    """Something happens that a stream of that name waits for."""
    gates.setdefault(name, asyncio.Semaphore(0)).release()
    return {"name": name}


async def pause(interval: float, gate: str | None) -> None:
    if gate is None:
        await asyncio.sleep(interval)
    else:
        await gates.setdefault(gate, asyncio.Semaphore(0)).acquire()


@app.get("/stream")
async def stream(chunks: int = 5, interval: float = 0.1, size: int = 16, gate: str | None = None) -> StreamingResponse:
    """Text in pieces; before each but the first a pause, or until somebody lets it through the gate."""

    async def pieces():
        for number in range(chunks):
            if number:
                await pause(interval, gate)
            yield f"{number}:".ljust(size, ".").encode()

    return StreamingResponse(pieces(), media_type="text/plain")


@app.get("/events")
async def events(
    request: Request, count: int = 5, interval: float = 0.1, gate: str | None = None
) -> StreamingResponse:
    """Server-sent events; each carries the time at which it was sent. It ends after `count`."""
    last = int(request.headers.get("last-event-id", "-1"))

    async def send():
        for number in range(last + 1, count):
            yield f"id: {number}\nevent: tick\ndata: {time.time()}\n\n"
            await pause(interval, gate)

    return StreamingResponse(send(), media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


waiting: dict[str, asyncio.Event] = {}


@app.get("/poll/{name}")
async def long_poll(name: str, timeout: float = 30) -> JSONResponse:
    """Answers when somebody posts to the same name, and 204 when nobody does."""
    event = waiting.setdefault(name, asyncio.Event())
    try:
        await asyncio.wait_for(event.wait(), timeout)
    except TimeoutError:
        return Response(status_code=204)
    return JSONResponse({"name": name})


@app.post("/poll/{name}", status_code=202)
async def wake(name: str) -> dict:
    waiting.pop(name, asyncio.Event()).set()
    return {"name": name}


@app.get("/slow")
async def slow(seconds: float = 1) -> dict:
    await asyncio.sleep(seconds)
    return {"slept": seconds}


# WebSockets.


@app.websocket("/ws")
async def echo_socket(socket: WebSocket) -> None:
    """Sends back what it gets. The text `close CODE REASON` makes it close so; `headers` makes it tell what it saw."""
    offered = socket.scope.get("subprotocols", [])
    await socket.accept(subprotocol=offered[0] if offered else None)
    try:
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if message.get("bytes") is not None:
                await socket.send_bytes(message["bytes"])
                continue
            text = message["text"]
            if text.startswith("close "):
                _, code, reason = text.split(" ", 2)
                await socket.close(int(code), reason)
                return
            if text == "headers":
                await socket.send_json(
                    {
                        "client": socket.client.host,
                        "scheme": socket.url.scheme,
                        "url": str(socket.url),
                        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in socket.headers.raw],
                    }
                )
                continue
            await socket.send_text(text)
    except WebSocketDisconnect:
        return


closed: dict[str, list] = {}


@app.websocket("/ws/closed/{name}")
async def remember_close(socket: WebSocket, name: str) -> None:
    """Remembers how the client closed; `GET /closed/{name}` tells."""
    await socket.accept()
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            closed[name] = [message.get("code"), message.get("reason")]
            return


@app.get("/closed/{name}")
async def how_closed(name: str) -> dict:
    if name not in closed:
        raise HTTPException(404)
    return {"code": closed[name][0], "reason": closed[name][1]}


@app.websocket("/ws/refused")
async def refuse_socket(socket: WebSocket) -> None:
    await socket.close(1008)


# Files.

# Every byte tells its place: a range that is off by one is seen. The same age in every worker, and so the same ETag.
file_path = Path.home() / ".cache" / "plausible" / f"report-{os.getpid()}.bin"
file_path.parent.mkdir(parents=True, exist_ok=True)
file_path.write_bytes(bytes(number % 251 for number in range(1_000_000)))
os.utime(file_path, (1_767_225_600, 1_767_225_600))


@app.api_route("/file", methods=["GET", "HEAD"])
async def file() -> FileResponse:
    return FileResponse(file_path, media_type="application/octet-stream", filename="Bericht für März.bin")


@app.get("/download")
async def download(
    size: Annotated[int, Query(ge=0, le=GIB)] = 1_000_000, chunk: int = 65536, length: bool = True, pattern: str = "\0"
) -> StreamingResponse:
    """Generated bytes, with `Content-Length` or chunked."""
    block = (pattern.encode() * (chunk // len(pattern.encode()) + 1))[:chunk]

    async def blocks():
        left = size
        while left > 0:
            part = block if left >= chunk else block[:left]
            left -= len(part)
            yield part

    headers = {"Content-Length": str(size)} if length else {}
    return StreamingResponse(blocks(), media_type="application/octet-stream", headers=headers)


@app.post("/upload")
async def upload_stream(request: Request) -> dict:
    """Counts and hashes a body while it comes."""
    count, digest, started = 0, hashlib.sha256(), time.time()
    first = None
    async for chunk in request.stream():
        first = first or time.time()
        count += len(chunk)
        digest.update(chunk)
    return {
        "bytes": count,
        "sha256": digest.hexdigest(),
        "first_after": (first or started) - started,
        "seconds": time.time() - started,
    }


@app.post("/upload/file")
async def upload_file(file: UploadFile, note: Annotated[str, Form()] = "") -> dict:
    count, digest = 0, hashlib.sha256()
    while chunk := await file.read(1 << 20):
        count += len(chunk)
        digest.update(chunk)
    return {
        "bytes": count,
        "sha256": digest.hexdigest(),
        "filename": file.filename,
        "content_type": file.content_type,
        "note": note,
    }


@app.post("/upload/refused")
async def refuse_upload(request: Request) -> JSONResponse:
    """Answers before it has read the body."""
    return JSONResponse({"detail": "too large"}, status_code=413)


# Cookies and redirects.


@app.get("/cookies/set")
async def set_cookies() -> JSONResponse:
    response = JSONResponse({"set": 3})
    response.set_cookie("session", "s-1", httponly=True, samesite="lax")
    response.set_cookie("theme", "dark", max_age=3600, path="/", samesite=None)
    response.set_cookie("language", "de; en", expires=3600)
    return response


@app.get("/cookies")
async def see_cookies(request: Request, session: Annotated[str | None, Cookie()] = None) -> dict:
    return {"session": session, "all": request.cookies, "raw": request.headers.getlist("cookie")}


@app.get("/redirect/absolute")
async def redirect_absolute(request: Request) -> RedirectResponse:
    return RedirectResponse(request.url_for("list_notes"))


@app.get("/redirect/relative")
async def redirect_relative() -> RedirectResponse:
    return RedirectResponse("../notes", status_code=302)


@app.get("/redirect/path")
async def redirect_path() -> RedirectResponse:
    return RedirectResponse("/notes?limit=1", status_code=303)


@app.get("/redirect/elsewhere")
async def redirect_elsewhere() -> RedirectResponse:
    return RedirectResponse("https://example.org/landing?x=1#part", status_code=302)


@app.get("/with-slash/")
async def with_slash() -> dict:
    """`/with-slash` is redirected here by Starlette, with an absolute `Location`."""
    return {"slash": True}


# Status codes and validators.

ETAG = '"v1"'
MODIFIED = datetime(2026, 1, 1, tzinfo=timezone.utc)


@app.api_route("/cached", methods=["GET", "HEAD"])
async def cached(if_none_match: Annotated[str | None, Header()] = None) -> Response:
    headers = {"ETag": ETAG, "Last-Modified": format_datetime(MODIFIED, usegmt=True), "Cache-Control": "max-age=60"}
    if if_none_match == ETAG:
        return Response(status_code=304, headers=headers)
    return PlainTextResponse("cached content", headers=headers)


@app.api_route("/nothing", methods=["GET", "POST", "DELETE"], status_code=204)
async def nothing() -> None:
    return None


@app.api_route("/status/{code}", methods=["GET", "POST"])
async def any_status(code: int) -> Response:
    if code in (204, 205, 304):
        return Response(status_code=code)
    return JSONResponse({"status": code}, status_code=code)


@app.get("/failure")
async def failure() -> dict:
    secret = "hunter2-in-a-local-variable"
    raise RuntimeError(f"the database password is {secret}")


@app.get("/failure/traceback")
async def failure_with_traceback() -> PlainTextResponse:
    """As an app in debug mode answers."""
    import traceback

    try:
        raise RuntimeError("the database password is hunter2")
    except RuntimeError:
        return PlainTextResponse(traceback.format_exc(), status_code=500)


@app.get("/failure/midway")
async def failure_midway() -> StreamingResponse:
    async def pieces():
        yield b"the first half, "
        await asyncio.sleep(0.05)
        raise RuntimeError("in the middle of the body")

    return StreamingResponse(pieces(), media_type="text/plain")


# What the app sees.


@app.api_route("/echo", methods=["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@app.api_route("/echo/{rest:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def echo(request: Request) -> dict:
    body = await request.body()
    return {
        "method": request.method,
        "client": request.client.host if request.client else None,
        "scheme": request.url.scheme,
        "url": str(request.url),
        "base_url": str(request.base_url),
        "path": request.scope["path"],
        "raw_path": request.scope["raw_path"].decode("latin-1"),
        "root_path": request.scope.get("root_path", ""),
        "query_string": request.scope["query_string"].decode("latin-1"),
        "http_version": request.scope["http_version"],
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in request.headers.raw],
        "body": body.decode("latin-1"),
    }


counts: Counter[str] = Counter()


@app.post("/count/{id}")
async def count(id: str, request: Request) -> dict:
    """Each client-given id is to arrive once: not lost, not twice."""
    await request.body()
    counts[id] += 1
    return {"id": id, "count": counts[id]}


@app.get("/count")
async def count_summary() -> dict:
    return {
        "ids": len(counts),
        "posts": sum(counts.values()),
        "more_than_once": sorted(id for id, times in counts.items() if times > 1)[:100],
    }


@app.delete("/count", status_code=204)
async def forget_counts() -> None:
    counts.clear()


# A page with a form.


@app.get("/form", response_class=HTMLResponse)
async def form() -> str:
    return """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>A form</title><style>body { font-family: sans-serif }</style></head>
<body>
<h1>Leave a message</h1>
<form method="post" action="/form">
<label>Name <input name="name" required></label>
<label>Message <textarea name="message"></textarea></label>
<button>Send</button>
</form>
<p id="script">no script ran</p>
<script>document.getElementById("script").textContent = "a script ran"</script>
</body>
</html>"""


@app.post("/form", response_class=HTMLResponse)
async def form_sent(name: Annotated[str, Form()], message: Annotated[str, Form()] = "") -> str:
    from html import escape

    return f"<!doctype html><title>Thanks</title><p>Thank you, {escape(name)}: {escape(message)}</p>"
