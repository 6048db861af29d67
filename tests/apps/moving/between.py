"""The application while it moves: it believes the gateway where the gateway says who asks, and its own tokens else."""

from typing import Annotated

from fastapi import Depends, FastAPI, Header, Request

import assertion
import items
import logins


def current_user(
    request: Request,
    token: Annotated[str | None, Depends(logins.bearer)],
    palisade_assertion: Annotated[str | None, Header()] = None,
) -> int:
    if palisade_assertion is not None:
        return assertion.current_user(request, palisade_assertion)
    return logins.current_user(token)


app = FastAPI(title="Items")
app.include_router(logins.routes)
app.include_router(items.router(current_user))
