"""A gRPC server without generated code: messages are bytes, most of them JSON.

`python server.py` prints `listening on http://127.0.0.1:PORT`; with `--tls CERT KEY` it speaks TLS, with `--unix PATH` it listens there.
"""

import argparse
import concurrent.futures
import json
import threading

import grpc

gone = 0
lock = threading.Lock()


def ended():
    global gone
    with lock:
        gone += 1


def say(request, context):
    """What was said, and by whom."""
    metadata = [[key, value if isinstance(value, str) else value.hex()] for key, value in context.invocation_metadata()]
    context.send_initial_metadata((("x-first", "1"),))
    context.set_trailing_metadata((("x-last", "2"), ("x-bytes-bin", b"\x00\xff")))
    return json.dumps({"said": request.decode(), "metadata": metadata}).encode()


def count(request, context):
    """As many messages, of that size."""
    wanted, size = json.loads(request)
    for number in range(wanted):
        yield str(number).encode().ljust(size)


def total(requests, context):
    messages = [len(request) for request in requests]
    return json.dumps([len(messages), sum(messages)]).encode()


def chat(requests, context):
    for request in requests:
        yield request.upper()


def fail(request, context):
    context.set_trailing_metadata((("x-why", "asked for"),))
    context.abort(grpc.StatusCode[request.decode()], "100 % wrong: \u00e4")


def wait(request, context):
    """Says nothing, until nobody listens any more."""
    over = threading.Event()
    context.add_callback(over.set)
    over.wait(60)
    ended()
    return b""


def watch(request, context):
    """Says one thing, and then nothing."""
    yield b"watching"
    yield wait(request, context)


def how_many_are_gone(request, context):
    return str(gone).encode()


HANDLERS = {
    "Say": grpc.unary_unary_rpc_method_handler(say),
    "Count": grpc.unary_stream_rpc_method_handler(count),
    "Total": grpc.stream_unary_rpc_method_handler(total),
    "Chat": grpc.stream_stream_rpc_method_handler(chat),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "Wait": grpc.unary_unary_rpc_method_handler(wait),
    "Watch": grpc.unary_stream_rpc_method_handler(watch),
    "Gone": grpc.unary_unary_rpc_method_handler(how_many_are_gone),
}

parser = argparse.ArgumentParser()
parser.add_argument("--tls", nargs=2)
parser.add_argument("--unix")
arguments = parser.parse_args()
server = grpc.server(concurrent.futures.ThreadPoolExecutor(max_workers=32))
for service in ["test.Echo", "other.Echo", "limited.Echo", "inside.Echo"]:
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, HANDLERS),))
scheme = "http"
if arguments.unix:
    server.add_insecure_port(f"unix:{arguments.unix}")
    port = 1
elif arguments.tls:
    scheme = "https"
    certificate, key = (open(file, "rb").read() for file in arguments.tls)
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, certificate)]))
else:
    port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(f"listening on {scheme}://127.0.0.1:{port}", flush=True)
server.wait_for_termination()
