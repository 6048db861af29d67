"""A login storm: clients that log in without pause, and one person who logs in now and then and waits as told.

    python storm.py URL CLIENTS SECONDS NAME own|one

`own`: each client has an address of its own, `one`: all have one.

Prints one line of JSON. A client that is turned away (429, 503) comes again 200 ms later, whatever it was told.
"""

import asyncio
import collections
import json
import sys
import time

import httpx

url, clients, seconds, name, addresses = sys.argv[1:6]
PASSWORD = "vier alte Kutschen im Nebel"
end = time.monotonic() + float(seconds)
answers = collections.Counter()
silent = 0
longest = 0.0
waited = []


def client(last: int) -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(local_address=f"127.0.1.{last}", verify=False)
    return httpx.AsyncClient(transport=transport, timeout=120)


async def log_in(session: httpx.AsyncClient, name: str, password: str) -> httpx.Response:
    return await session.post(url, data={"grant_type": "password", "username": name, "password": password})


async def storm(number: int) -> None:
    global silent, longest
    async with client(number + 1 if addresses == "own" else 1) as session:
        while time.monotonic() < end:
            begin = time.monotonic()
            # The right one, so that nothing is locked and each is worth a hash.
            answer = await log_in(session, f"{name}{number}", PASSWORD)
            longest = max(longest, time.monotonic() - begin)
            answers[answer.status_code] += 1
            if answer.status_code in (429, 503):
                silent += "retry-after" not in answer.headers
                await asyncio.sleep(0.2)


async def patient() -> None:
    async with client(200) as session:
        await asyncio.sleep(1)
        while time.monotonic() < end:
            begin = time.monotonic()
            while (answer := await log_in(session, f"{name}-patient", PASSWORD)).status_code in (429, 503):
                await asyncio.sleep(float(answer.headers["retry-after"]))
            assert answer.status_code == 200, answer.text
            waited.append(time.monotonic() - begin)
            await asyncio.sleep(0.5)


async def main() -> None:
    await asyncio.gather(patient(), *(storm(number) for number in range(int(clients))))


asyncio.run(main())
print(json.dumps({"answers": answers, "without_retry_after": silent, "longest_s": longest, "waited_s": waited}))
