"""Calls of every kind, made by gRPC's own client: `python client.py ADDRESS CA CALL...` prints what came of each as a line of JSON."""

import concurrent.futures
import json
import sys
import time

import grpc

address, ca, *wanted = sys.argv[1:]
# Keep the name of the certificate; the address is one of loopback.
channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(open(ca, "rb").read()))
LIMIT = 30


def unary(method, message=b"hello", **more):
    return channel.unary_unary(method).with_call(message, **{"timeout": LIMIT, **more})


def gone_becomes(number):
    end = time.monotonic() + LIMIT
    while (now := int(unary("/test.Echo/Gone")[0])) < number and time.monotonic() < end:
        time.sleep(0.02)
    return now


def say():
    answer, call = unary(
        "/test.Echo/Say",
        metadata=(
            ("x-mine", "a"),
            ("x-mine-bin", b"\x01\xfe"),
            ("x-forwarded-for", "198.51.100.1"),
            ("x-forwarded-user", "admin"),
            ("x-real-ip", "198.51.100.1"),
        ),
    )
    last = [[key, value if isinstance(value, str) else value.hex()] for key, value in call.trailing_metadata()]
    return {**json.loads(answer), "first": dict(call.initial_metadata()), "last": dict(last)}


def count():
    sizes = [len(part) for part in channel.unary_stream("/test.Echo/Count")(b"[300, 50000]", timeout=LIMIT)]
    return [len(sizes), sum(sizes)]


def total():
    return json.loads(channel.stream_unary("/test.Echo/Total")(iter([b"x" * 100_000] * 100), timeout=LIMIT))


def chat():
    """Each message is sent once the one before it was answered."""
    answers = []

    def messages():
        for number in range(20):
            while len(answers) < number:
                time.sleep(0.001)
            yield f"message {number}".encode()

    for answer in channel.stream_stream("/test.Echo/Chat")(messages(), timeout=LIMIT):
        answers.append(answer.decode())
    return answers


def busy():
    """As fast as it goes, which is many frames that carry little."""
    messages = iter([b"x"] * 5000)
    return sum(1 for _ in channel.stream_stream("/test.Echo/Chat")(messages, timeout=LIMIT))


def fail():
    outcomes = {}
    for name in ["NOT_FOUND", "UNAUTHENTICATED", "DATA_LOSS"]:
        try:
            unary("/test.Echo/Fail", name.encode())
        except grpc.RpcError as error:
            outcomes[name] = [error.code().name, error.details(), dict(error.trailing_metadata()).get("x-why")]
    return outcomes


def deadline():
    before = int(unary("/test.Echo/Gone")[0])
    outcome = attempt(lambda: unary("/test.Echo/Wait", timeout=0.5))
    return [outcome, gone_becomes(before + 1) - before]


def cancel():
    """The application learns that nobody listens, though its answer has begun."""
    before = int(unary("/test.Echo/Gone")[0])
    call = channel.unary_stream("/test.Echo/Watch")(b"", timeout=LIMIT)
    first = next(call)
    call.cancel()
    return [first.decode(), gone_becomes(before + 1) - before]


def large():
    return [
        attempt(lambda: len(unary("/test.Echo/Say", b"x" * 1_000_000)[0]) > 1_000_000),
        attempt(lambda: unary("/test.Echo/Say", b"x" * 1_100_000)),
    ]


def large_later():
    """The answer has begun when a message is too large."""
    answers = []

    def messages():
        yield b"small"
        while not answers:
            time.sleep(0.001)
        yield b"x" * 1_100_000

    def talk():
        for answer in channel.stream_stream("/test.Echo/Chat")(messages(), timeout=LIMIT):
            answers.append(answer.decode())

    return [attempt(talk), answers]


def many():
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        said = pool.map(lambda n: json.loads(unary("/test.Echo/Say", str(n).encode())[0])["said"], range(400))
    return sum(int(number) for number in said)


def refused():
    return {
        method: attempt(lambda: unary(method) and "passed")
        for method in ["/other.Echo/Say", "/inside.Echo/Say", "/away.Echo/Say", "/limited.Echo/Say", "/limited.Echo/Count"]
    }


def plain():
    return attempt(lambda: json.loads(unary("/test.Echo/Say")[0])["said"])


def silent():
    return attempt(lambda: unary("/test.Echo/Wait") and "passed")


def attempt(call):
    try:
        return call()
    except grpc.RpcError as error:
        return [error.code().name, error.details()]


for name in wanted:
    print(json.dumps({"call": name, "outcome": globals()[name]()}), flush=True)
