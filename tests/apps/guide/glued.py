"""The guide's app with what the guide leaves to its reader, filled in with its own functions and nothing else.

Section 1 says "verify user credentials here" and section 4 has the functions for it; section 10 makes refresh tokens and no
route takes them; section 5 does not run as printed. Here it does: with `request`, and the method that the package has.
"""

from fastapi import Depends, Form, HTTPException, Request
from fastapi.responses import JSONResponse
from fastapi.security import OAuth2PasswordRequestForm
from fastapi_csrf_protect import CsrfProtect
from jose import jwt

from main import ALGORITHM, SECRET_KEY, app, create_tokens, hash_password, verify_password

USERS = {name: hash_password("vier alte Kutschen im Nebel") for name in ("alice", "bob", "carol", "dora")}
USERS["long"] = hash_password("vier alte Kutschen im Nebel, fünf neue im Regen, und keine von ihnen da! secret tail")


@app.post("/glued/token")
async def token(form_data: OAuth2PasswordRequestForm = Depends()):
    hashed = USERS.get(form_data.username)
    if hashed is None or not verify_password(form_data.password, hashed):
        raise HTTPException(status_code=401, detail="Incorrect username or password")
    return create_tokens(form_data.username)


@app.post("/glued/refresh")
async def refresh(refresh_token: str = Form()):
    return create_tokens(jwt.decode(refresh_token, SECRET_KEY, algorithms=[ALGORITHM])["sub"])


@app.get("/glued/csrf")
async def csrf(csrf_protect: CsrfProtect = Depends()):
    token, signed = csrf_protect.generate_csrf_tokens()
    response = JSONResponse({"csrf_token": token})
    csrf_protect.set_csrf_cookie(signed, response)
    return response


@app.post("/glued/form")
async def form(request: Request, csrf_protect: CsrfProtect = Depends()):
    await csrf_protect.validate_csrf(request)
    return {"message": "Form submitted successfully"}


@app.get("/glued/ping")
async def ping():
    return {"message": "pong"}
