"""Hundreds of connections at once that do right and wrong things to a server."""

import asyncio
import collections
import json
import random
import urllib.parse

# What a connection may do, and the statuses that it may get: 429 is right for a full queue.
ALLOWED = {
    "stream": {200, 429},
    "plain": {200, 429},
    "leave early": {200, 429},
    "cut the body": {None},
    "bad JSON": {400, 429},
    "deep JSON": {400, 429},
    "wrong media type": {415},
    "no key": {401},
    "garbage": {400, None},
    "two lengths": {400},
    "slow head": {None},
}
PATIENCE_S = 120


class Storm:
    def __init__(self, url, key, seed):
        self.address = urllib.parse.urlsplit(url)
        self.key = key
        self.random = random.Random(seed)
        self.seen = collections.Counter()

    def head(self, body_bytes, media_type="application/json", key=None):
        return (f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: {media_type}\r\n"
                f"Authorization: Bearer {key or self.key}\r\n"
                f"Content-Length: {body_bytes}\r\n\r\n").encode()

    def message(self, kind):
        stream = kind in ("stream", "leave early")
        body = json.dumps({"messages": [{"role": "user", "content": "storm"}], "max_tokens": 20,
                           "stream": stream, "ignore_eos": True, "logit_bias": {"1": -100}}).encode()
        if kind == "cut the body":
            return self.head(len(body)) + body[:20]
        if kind == "bad JSON":
            body = body[:-3]
        if kind == "deep JSON":
            body = b'{"messages":' + b"[" * 200_000
        if kind == "wrong media type":
            return self.head(len(body), media_type="text/plain") + body
        if kind == "no key":
            return self.head(len(body), key="sk-wrong") + body
        if kind == "garbage":
            return self.random.randbytes(300) + b"\r\n\r\n"
        if kind == "two lengths":
            return self.head(5)[:-2] + b"Content-Length: 6\r\n\r\nhello"
        if kind == "slow head":
            return self.head(5)[:30]
        return self.head(len(body)) + body

    async def connection(self, kind):
        reader, writer = await asyncio.open_connection(self.address.hostname, self.address.port)
        try:
            writer.write(self.message(kind))
            await writer.drain()
            if kind in ("cut the body", "slow head"):
                return None
            line = await reader.readline()
            status = int(line.split()[1]) if line.startswith(b"HTTP/1.1 ") else None
            if status == 200 and kind == "leave early":
                await reader.read(100)
                writer.transport.abort()
            elif status == 200 and kind == "stream":
                await reader.readuntil(b"data: [DONE]\n\n")
            return status
        except ConnectionResetError:
            return None
        finally:
            writer.close()

    async def one(self, kind):
        status = await asyncio.wait_for(self.connection(kind), PATIENCE_S)
        assert status in ALLOWED[kind], f"'{kind}' got {status}"
        self.seen[status] += 1

    async def all(self, count):
        kinds = [self.random.choice(list(ALLOWED)) for _ in range(count)]
        await asyncio.gather(*(self.one(kind) for kind in kinds))


def storm(url, key, count, seed):
    """How often each status came; raises on one that should not have."""
    it = Storm(url, key, seed)
    asyncio.run(it.all(count))
    return it.seen
