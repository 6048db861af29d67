"""Credentials by the thousand, for measuring what each costs the gateway.

    python credentials.py STATE KEY URL NAME PASSWORD COUNT ROUNDS OUT

One access token and one session are got as anybody gets them. The others are made from those with the gateway's own signing
key (KEY, in PEM) and the database in its state. Each file of OUT holds a header a line.
"""

import base64
import hashlib
import json
import os
import random
import sqlite3
import sys
import uuid

import httpx
from cryptography.hazmat.primitives.serialization import load_pem_private_key

state, pem, url, name, password, count, rounds, out = sys.argv[1:9]
count, rounds = int(count), int(rounds)


def text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def write(file: str, lines) -> None:
    with open(os.path.join(out, file), "w", encoding="ascii") as target:
        target.writelines(f"{line}\n" for line in lines)


client = httpx.Client(base_url=url, verify=False, timeout=60)
login = {"grant_type": "password", "username": name, "password": password}
token = client.post("/auth/token", data=login).raise_for_status().json()["access_token"]
write("token.txt", [f"Authorization: Bearer {token}"])
answer = client.post("/auth/login", json={"username": name, "password": password}).raise_for_status()
session = next(c for c in answer.headers.get_list("set-cookie") if c.startswith("__Host-palisade="))
write("session.txt", ["Cookie: " + session.split(";")[0]])

# Tokens that differ in their `jti`, signed by the gateway's own key.
with open(pem, "rb") as file:
    key = load_pem_private_key(file.read(), None)
header, payload, _ = token.split(".")
claims = json.loads(base64.urlsafe_b64decode(payload + "=="))


first = uuid.UUID(claims["jti"])


def another() -> str:
    # A `jti` says when its token was made, and is random behind that.
    jti = uuid.UUID(int=first.int >> 62 << 62 | random.getrandbits(62))
    signed = f"{header}.{text(json.dumps(claims | {'jti': str(jti)}).encode())}"
    return f"Authorization: Bearer {signed}.{text(key.sign(signed.encode()))}"


for number in range(rounds):
    write(f"tokens-{number}.txt", (another() for _ in range(count)))

# Sessions like the one above, each with a secret of its own, stored as its hash.
database = sqlite3.connect(os.path.join(state, "palisade.db"), timeout=30)
columns = [row[1] for row in database.execute("pragma table_info(palisade_session)")]
model = dict(zip(columns, database.execute("select * from palisade_session order by created_at desc").fetchone()))
label = b"palisade session v1"


def row(secret: bytes) -> list:
    hashed = hashlib.sha256(len(label).to_bytes(8) + label + len(secret).to_bytes(8) + secret).digest()
    values = model | {"id": uuid.uuid4().bytes, "hash": hashed}
    return [values[column] for column in columns]


secrets = [os.urandom(32) for _ in range(count)]
with database:
    marks = ", ".join("?" * len(columns))
    database.executemany(f"insert into palisade_session values ({marks})", map(row, secrets))
write("sessions.txt", (f"Cookie: __Host-palisade={text(secret)}" for secret in secrets))
print(json.dumps({"token_bytes": len(token), "sessions": count}))
