"""An upstream made of plain asyncio, for what uvicorn can't do: trailers, interim answers, odd framing.

`python server.py --port 0` prints `listening on http://127.0.0.1:PORT`. The path says what is answered; see `ANSWERS`.
Everything here is legal HTTP/1.1 unless its path starts with /bad/.
"""

import argparse
import asyncio
import json


async def read_head(reader):
    """The request line and the headers, or nothing when the client has closed."""
    line = await reader.readline()
    if not line:
        return None
    method, target, _version = line.decode("latin-1").split()
    headers = []
    while (line := await reader.readline()) not in (b"\r\n", b""):
        name, _, value = line.decode("latin-1").partition(":")
        headers.append((name, value.strip()))
    return method, target, headers


def header(headers, name):
    return next((value for key, value in headers if key.lower() == name), None)


async def read_body(reader, headers):
    """The body, and its trailers."""
    if "chunked" in (header(headers, "transfer-encoding") or "").lower():
        body = b""
        while size := int((await reader.readline()).split(b";")[0], 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        trailers = []
        while (line := await reader.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            trailers.append((name, value.strip()))
        return body, trailers
    return await reader.readexactly(int(header(headers, "content-length") or 0)), []


async def trailers(writer, **_):
    """Chunked, with two trailers that the head announced."""
    writer.write(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\nTrailer: X-Checksum, Server-Timing\r\n\r\n"
        b"5\r\nhello\r\n6\r\n world\r\n0\r\nX-Checksum: 3e25960a\r\nServer-Timing: db;dur=12.5\r\n\r\n"
    )


async def early_hints(writer, **_):
    """103, and then the answer."""
    writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n")
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhints")


async def until_close(writer, **_):
    """A body that ends with the connection, as HTTP/1.0 does."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nuntil the end")
    return "close"


async def small_chunks(writer, **_):
    """A byte a chunk, each sent by itself."""
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for byte in b"piecemeal":
        writer.write(b"1\r\n%c\r\n" % byte)
        await writer.drain()
        await asyncio.sleep(0.01)
    writer.write(b"0\r\n\r\n")


async def chunk_extensions(writer, **_):
    """Chunk extensions, upper-case and zero-padded sizes."""
    writer.write(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n00A;name="va;lue"\r\n0123456789\r\n0\r\n\r\n')


async def slow_head(writer, **_):
    """A head that comes in two pieces."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Le")
    await writer.drain()
    await asyncio.sleep(0.1)
    writer.write(b"ngth: 4\r\n\r\nslow")


async def many_headers(writer, **_):
    """Several of one name, an empty one, unusual case."""
    writer.write(
        b"HTTP/1.1 200 OK\r\nset-cookie: a=1\r\nSET-COOKIE: b=2\r\nX-Empty:\r\nx-MiXeD: yes\r\nContent-Length: 2\r\n\r\nok"
    )


async def close_after(writer, **_):
    """Closes after a whole answer, without having said so."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    return "close"


async def bad_short(writer, **_):
    """Promises more than it sends."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")
    return "close"


async def bad_extra(writer, **_):
    """Sends more than it promised: the rest could be taken for the next answer."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen")


async def bad_both(writer, **_):
    """Both ways to say where the body ends."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")


async def bad_chunk(writer, **_):
    """A chunk size that is none."""
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nxyz\r\n")
    return "close"


async def bad_head(writer, **_):
    """No HTTP at all."""
    writer.write(b"220 mail.example.org ESMTP\r\n")
    return "close"


async def bad_silent(writer, **_):
    """Closes without an answer."""
    return "close"


ANSWERS = {
    "/trailers": trailers,
    "/early-hints": early_hints,
    "/until-close": until_close,
    "/small-chunks": small_chunks,
    "/chunk-extensions": chunk_extensions,
    "/slow-head": slow_head,
    "/many-headers": many_headers,
    "/close-after": close_after,
    "/bad/short": bad_short,
    "/bad/extra": bad_extra,
    "/bad/both": bad_both,
    "/bad/chunk": bad_chunk,
    "/bad/head": bad_head,
    "/bad/silent": bad_silent,
}


async def serve(reader, writer):
    try:
        while request := await read_head(reader):
            method, target, headers = request
            path = target.partition("?")[0]
            expects = (header(headers, "expect") or "").lower() == "100-continue"
            if path == "/expect/refused":
                # Refuses from the head alone: the body must never come.
                body = json.dumps({"expect": expects}).encode()
                writer.write(b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
                break
            if expects:
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                await writer.drain()
            body, trailers_sent = await read_body(reader, headers)
            if answer := ANSWERS.get(path):
                if await answer(writer) == "close":
                    break
                await writer.drain()
                continue
            # Anything else, `/expect` too: what arrived.
            seen = {
                "method": method,
                "target": target,
                "headers": headers,
                "expect": expects,
                "bytes": len(body),
                "body": body[:65536].decode("latin-1"),
                "trailers": trailers_sent,
            }
            text = json.dumps(seen).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(text))
            writer.write(b"" if method == "HEAD" else text)
            await writer.drain()
        await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError, ValueError):
        pass
    finally:
        writer.close()


async def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--port", type=int, default=0)
    server = await asyncio.start_server(serve, "127.0.0.1", arguments.parse_args().port)
    print(f"listening on http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
