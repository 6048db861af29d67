"""The application before it moves: its logins are its own."""

from fastapi import FastAPI

import items
import logins

app = FastAPI(title="Items")
app.include_router(logins.routes)
app.include_router(items.router(logins.current_user))
