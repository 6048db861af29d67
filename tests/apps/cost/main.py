"""One answer of 200 bytes, for measuring what it costs: bare, or with the middleware that the guide puts in front of it.

With COST_MIDDLEWARE=guide the sections 7, 8, 9 and 16 of the guide are in it as they are printed; only hosts and limits are raised to
what the measurement needs. In front of both stands a gateway: nginx with TLS in one case, Palisade in the other.
"""

import logging
import os

from fastapi import FastAPI, Request

TEXT = "n" * 127
app = FastAPI()


def answer() -> dict:
    return {"id": 4711, "title": "a note", "author": "ada", "tags": ["one", "two"], "text": TEXT}


if os.environ.get("COST_MIDDLEWARE") != "guide":

    @app.get("/")
    async def bare(request: Request):
        return answer()

else:
    from fastapi.middleware.cors import CORSMiddleware
    from fastapi.middleware.httpsredirect import HTTPSRedirectMiddleware
    from fastapi.middleware.trustedhost import TrustedHostMiddleware
    from pythonjsonlogger import jsonlogger
    from slowapi import Limiter, _rate_limit_exceeded_handler
    from slowapi.errors import RateLimitExceeded
    from slowapi.util import get_remote_address
    from starlette.middleware.base import BaseHTTPMiddleware

    class SecurityHeadersMiddleware(BaseHTTPMiddleware):
        async def dispatch(self, request, call_next):
            response = await call_next(request)
            response.headers["X-Content-Type-Options"] = "nosniff"
            response.headers["X-Frame-Options"] = "DENY"
            response.headers["X-XSS-Protection"] = "1; mode=block"
            response.headers["Strict-Transport-Security"] = "max-age=31536000; includeSubDomains"
            response.headers["Content-Security-Policy"] = "default-src 'self'"
            return response

    app.add_middleware(SecurityHeadersMiddleware)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["api.bench.test"])
    app.add_middleware(HTTPSRedirectMiddleware)

    limiter = Limiter(key_func=get_remote_address)
    app.state.limiter = limiter
    app.add_exception_handler(RateLimitExceeded, _rate_limit_exceeded_handler)

    @app.get("/")
    @limiter.limit("1000000000/minute")
    async def limited(request: Request):
        return answer()

    app.add_middleware(
        CORSMiddleware,
        allow_origins=["https://app.example.com"],
        allow_credentials=True,
        allow_methods=["GET", "POST", "PUT", "DELETE"],
        allow_headers=["Authorization", "Content-Type"],
        max_age=3600,
    )

    logger = logging.getLogger()
    handler = logging.StreamHandler()
    handler.setFormatter(jsonlogger.JsonFormatter())
    logger.addHandler(handler)

    @app.middleware("http")
    async def log_requests(request: Request, call_next):
        logger.info(
            "request_started", extra={"method": request.method, "path": request.url.path, "ip": request.client.host}
        )
        response = await call_next(request)
        logger.info("request_completed", extra={"status_code": response.status_code})
        return response
