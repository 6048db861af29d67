"""The application once it has moved: no passwords, no tokens, no key."""

from fastapi import FastAPI

import assertion
import items

app = FastAPI(title="Items")
app.include_router(items.router(assertion.current_user))
