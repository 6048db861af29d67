"""A mail server that says what it got: one line of JSON a mail, after `mail `.

It can be the servers that mail meets in the world: one that wants TLS, one that wants a login, one that says no, one
that says later, one that says nothing.
"""

import argparse
import asyncio
import json
import ssl

from aiosmtpd.smtp import SMTP, AuthResult

options = argparse.ArgumentParser()
options.add_argument("--port", type=int, default=0)
options.add_argument("--tls", choices=["none", "implicit", "starttls"], default="none")
options.add_argument("--cert")
options.add_argument("--key")
options.add_argument("--password", help="who logs in as `palisade` with it may send")
options.add_argument("--reject", help="recipients that begin with this are refused for good")
options.add_argument("--defer", type=int, default=0, help="so many mails are put off")
options.add_argument("--stall", action="store_true", help="accepts connections and says nothing")
options = options.parse_args()


class Handler:
    def __init__(self):
        self.deferred = 0

    async def handle_RCPT(self, server, session, envelope, address, _):
        if options.reject and address.startswith(options.reject):
            return f"550 5.1.1 <{address}>: there is nobody of that name"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        if self.deferred < options.defer:
            self.deferred += 1
            return "451 4.3.0 later"
        mail = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "content": envelope.content.decode("utf-8", "replace"),
            "tls": session.ssl is not None or options.tls == "implicit",
        }
        print("mail " + json.dumps(mail), flush=True)
        return "250 Message accepted for delivery"


def authenticate(server, session, envelope, mechanism, auth_data):
    right = auth_data.login == b"palisade" and auth_data.password == options.password.encode()
    return AuthResult(success=right, handled=False)


async def main():
    context = None
    if options.tls != "none":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.cert, options.key)
    starttls = context if options.tls == "starttls" else None
    handler = Handler()

    def protocol():
        if options.stall:
            return asyncio.Protocol()
        login = {"auth_required": True, "auth_require_tls": False, "authenticator": authenticate} if options.password else {}
        return SMTP(handler, tls_context=starttls, require_starttls=starttls is not None, enable_SMTPUTF8=True, **login)

    implicit = context if options.tls == "implicit" else None
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", options.port, ssl=implicit)
    port = server.sockets[0].getsockname()[1]
    print(f"listening on smtp://127.0.0.1:{port}", flush=True)
    await server.serve_forever()


asyncio.run(main())
