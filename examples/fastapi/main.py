"""A FastAPI application without login code of its own: `palisade serve`, from this folder."""

from typing import Annotated

from fastapi import Depends, FastAPI, Security, WebSocket
from pydantic import BaseModel, Field

from identity import User, administrator, current_user

app = FastAPI(title="Notes")


class Note(BaseModel):
    text: str = Field(max_length=10_000)


notes: dict[str, list[Note]] = {}


@app.get("/")
def home():
    return {"message": "Welcome!"}


@app.get("/me")
def me(user: Annotated[User, Depends(current_user)]):
    return user


@app.get("/notes")
async def mine(user: Annotated[User, Security(current_user, scopes=["notes:read"])]) -> list[Note]:
    return notes.get(user.id, [])


@app.post("/notes", status_code=201)
async def write(note: Note, user: Annotated[User, Security(current_user, scopes=["notes:write"])]) -> Note:
    # Bounded, as everything that strangers can fill.
    notes.setdefault(user.id, []).append(note)
    del notes[user.id][:-100]
    return note


@app.delete("/admin/notes/{user_id}")
def forget(user_id: str, admin: Annotated[User, Depends(administrator)]):
    notes.pop(user_id, None)
    return {"message": f"notes of {user_id} deleted by {admin.name}"}


@app.websocket("/live")
async def live(socket: WebSocket, user: Annotated[User, Depends(current_user)]):
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(f"{user.name}: {text}")
