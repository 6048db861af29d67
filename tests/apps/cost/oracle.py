"""Whether an answer, or the time it takes, says which accounts there are.

    python oracle.py STATE URL COUNT

Accounts of each kind are copied into the gateway's own database from one that is there. Every request is about another account,
those of one comparison in random order. Prints one line of JSON: by comparison, the median and the distribution of each kind.
"""

import asyncio
import base64
import hashlib
import itertools
import json
import math
import os
import random
import re
import sqlite3
import statistics
import sys
import time
import uuid

import httpx

state, url, count = sys.argv[1:4]
count = int(count)
PASSWORD = "vier alte Kutschen im Nebel"
database = sqlite3.connect(os.path.join(state, "palisade.db"), timeout=30)
columns = [row[1] for row in database.execute("pragma table_info(palisade_user)")]
model = dict(zip(columns, database.execute("select * from palisade_user where name_key = 'bench'").fetchone()))
now = model["created_at"]


def attempts(*parts: bytes) -> bytes:
    parts = (b"palisade attempts v1", *parts)
    return hashlib.sha256(b"".join(len(part).to_bytes(8) + part for part in parts)).digest()


def users(kind: str, **other) -> list[str]:
    names = [f"{kind}-{number}" for number in range(count)]
    with database:
        for name in names:
            email = f"{name}@example.com"
            own = {"id": uuid.uuid4().bytes, "name": name, "name_key": name, "email": email, "email_key": email}
            row = model | own | {"email_verified_at": now, "app_id": None} | other
            marks = ", ".join("?" * len(columns))
            database.execute(f"insert into palisade_user values ({marks})", [row[column] for column in columns])
            if kind == "locked":
                lock(b"user", b"stranger", row["id"])
    return names


def lock(*whose: bytes) -> None:
    """As if there had been more wrong passwords than an account may have."""
    since = int(time.time() * 1000)
    database.execute("insert into palisade_attempt (key, since, count) values (?, ?, 20)", (attempts(*whose), since))


def nobody(kind: str, locked: bool = False) -> list[str]:
    names = [f"{kind}-{number}" for number in range(count)]
    if locked:
        with database:
            for name in names:
                lock(b"name", b"stranger", name.encode())
    return names


networks = itertools.count()


def client() -> httpx.AsyncClient:
    # Each in a network of its own: what many addresses of one /24 may ask for together is limited too.
    number = next(networks)
    address = f"127.{2 + number // 256}.{number % 256}.1"
    return httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(local_address=address, verify=False), timeout=60)


async def ask(call, work, times, seen) -> None:
    """Those of one address: fewer than it may try."""
    async with client() as session:
        # The connection is there before the clock runs.
        await session.get(url + "/")
        for kind, name in work:
            path, body = call(kind, name)
            begin = time.perf_counter()
            answer = await session.post(url + path, **body)
            times[kind].append(time.perf_counter() - begin)
            text = re.sub(r'"request_id":"[^"]*"', "", answer.text)
            headers = sorted(name for name in answer.headers if name not in ("date", "x-request-id"))
            seen[kind].add((answer.status_code, text, tuple(headers)))


async def compare(call, kinds: dict[str, list[str]], at_once: int = 1) -> dict:
    times = {kind: [] for kind in kinds}
    seen = {kind: set() for kind in kinds}
    work = [(kind, name) for kind, names in kinds.items() for name in names]
    random.Random(1).shuffle(work)
    size = 16 if at_once == 1 else 8
    batches = [work[start : start + size] for start in range(0, len(work), size)]
    turn = asyncio.Semaphore(at_once)

    async def batch(work) -> None:
        async with turn:
            await ask(call, work, times, seen)

    await asyncio.gather(*map(batch, batches))
    first, *others = kinds
    base = statistics.median(times[first])
    answers = set().union(*seen.values())
    result = {"same_answer": len(answers) == 1, "answers": sorted(f"{status} {text}" for status, text, _ in answers)}
    result["kinds"] = {
        kind: {
            "median_ms": statistics.median(values) * 1000,
            "ratio": statistics.median(values) / base,
            "ks_p": 1.0 if kind == first else kolmogorov(times[first], values),
            "count": len(values),
        }
        for kind, values in times.items()
    }
    return result


def kolmogorov(one: list[float], other: list[float]) -> float:
    """The two-sample test of Kolmogorov and Smirnov, by its limit distribution."""
    one, other = sorted(one), sorted(other)
    distance, i, j = 0.0, 0, 0
    while i < len(one) and j < len(other):
        if one[i] <= other[j]:
            i += 1
        else:
            j += 1
        distance = max(distance, abs(i / len(one) - j / len(other)))
    size = math.sqrt(len(one) * len(other) / (len(one) + len(other)))
    statistic = (size + 0.12 + 0.11 / size) * distance
    terms = (2 * (-1) ** (k - 1) * math.exp(-2 * k * k * statistic * statistic) for k in range(1, 101))
    return min(1.0, max(0.0, sum(terms))) if statistic > 0.2 else 1.0


def login(kind: str, name: str):
    # Whoever may not log in is told nothing else with the right password.
    password = PASSWORD if kind in ("disabled", "locked") else "another one altogether"
    return "/auth/token", {"data": {"grant_type": "password", "username": name, "password": password}}


def reset(_: str, name: str):
    return "/auth/password/reset", {"json": {"email": f"{name}@example.com"}}


def register(kind: str, name: str):
    account = {"username": f"new-{kind}-{name}", "email": f"{name}@example.com", "password": PASSWORD}
    return "/auth/register", {"json": account}


def verify(_: str, token: str):
    return "/auth/email/verify", {"json": {"token": token}}


def links(**other) -> list[str]:
    """Tokens of links to prove an address: nobody's without `other`, else such a link of the account `bench`."""
    tokens = []
    with database:
        for secret in (os.urandom(32) for _ in range(count)):
            tokens.append("palv_" + base64.urlsafe_b64encode(secret).rstrip(b"=").decode())
            parts = (b"palisade verification link v1", secret)
            hashed = hashlib.sha256(b"".join(len(part).to_bytes(8) + part for part in parts)).digest()
            row = {"hash": hashed, "purpose": "verify", "user": model["id"], "email": model["email"]} | other
            if other:
                names, marks = ", ".join(f'"{name}"' for name in row), ", ".join("?" * len(row))
                database.execute(f"insert into palisade_link ({names}) values ({marks})", list(row.values()))
    return tokens


async def main() -> None:
    wrong = users("wrong")
    kinds = {
        "unknown": nobody("unknown"),
        "wrong": wrong,
        "disabled": users("disabled", disabled_at=now),
        "unverified": users("unverified", email_verified_at=None),
    }
    found = {"login": await compare(login, kinds)}
    kinds = {"unknown": nobody("locked-nobody", locked=True), "locked": users("locked")}
    found["login, after many attempts"] = await compare(login, kinds, at_once=32)
    known = {"unknown": nobody("free"), "known": users("known"), "disabled": users("off", disabled_at=now)}
    found["reset"] = await compare(reset, known)
    taken = {"free": nobody("fresh"), "taken": users("taken")}
    later = now + 86_400_000
    proofs = {"unknown": links(), "over": links(expires_at=now - 1), "used": links(expires_at=later, used_at=now)}
    found["verification"] = await compare(verify, proofs)
    found["registration"] = await compare(register, taken)
    print(json.dumps(found))


asyncio.run(main())
