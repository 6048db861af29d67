"""What an application makes of a body, in the ways that FastAPI and Starlette have. A test compares it with what rules saw."""

from typing import Any

from fastapi import Body, FastAPI, Request

app = FastAPI()


def texts(value):
    """Every key and every string in a document."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for key, item in value.items() for text in [key, *texts(item)]]
    if isinstance(value, list):
        return [text for item in value for text in texts(item)]
    return []


@app.post("/declared")
def declared(item: Any = Body()):
    return {"texts": texts(item)}


@app.post("/asked")
async def asked(request: Request):
    """Reads whatever came as JSON and as a form, as handlers do that do not look at the type."""
    seen = []
    try:
        seen += texts(await request.json())
    except Exception:
        pass
    try:
        for name, value in (await request.form()).multi_items():
            seen += [name, value if isinstance(value, str) else value.filename or ""]
    except Exception:
        pass
    return {"texts": seen}
