"""Tokens as anybody can make them who has read the guide: its secret is printed in it. Prints one line of JSON."""

import json
from datetime import datetime, timedelta, timezone

from jose import jwt

SECRET_KEY = "your-secret-key-keep-it-secret"
soon = datetime.now(timezone.utc) + timedelta(minutes=30)


def made(claims, **header):
    return jwt.encode({"sub": "alice", "exp": soon} | claims, SECRET_KEY, algorithm="HS256", headers=header)


tokens = {
    "of nobody": made({"sub": "no-such-user"}),
    "of an administrator": made({"sub": "admin", "role": "admin"}),
    "of another issuer": made({"iss": "https://evil.example"}),
    "without an end": jwt.encode({"sub": "alice"}, SECRET_KEY, algorithm="HS256"),
    "of another kind": made({}, typ="email-verify+jwt"),
    "with a header that must be understood": made({}, crit=["exp2"], exp2=1),
    "for refreshing": made({"type": "refresh", "exp": soon + timedelta(days=7)}),
}
print(json.dumps(tokens))
