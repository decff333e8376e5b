"""Hundreds of connections at once that do right and wrong things to a server."""

import asyncio
import collections
import json
import random
import socket
import struct
import urllib.parse

# What a connection may do, and the statuses that it may get: 429 is right for a full queue, 503 for bodies that
# together are more than the server holds. None: it leaves before an answer, or is cut off.
BUSY = {429, 503}
ALLOWED = {
    "stream": {200} | BUSY,
    "plain": {200} | BUSY,
    "many choices": {200} | BUSY,
    "two at once": {200} | BUSY,
    "leave anywhere": {200, None} | BUSY,
    "read slowly": {200} | BUSY,
    "send slowly": {200} | BUSY,
    "cut the body": {None},
    "slow head": {None},
    "bad JSON": {400} | BUSY,
    "deep JSON": {400} | BUSY,
    "no JSON at all": {400} | BUSY,
    "long prompt": {400} | BUSY,
    "huge body": {413},
    "huge body in chunks": {413, None},
    "huge head": {431, None},
    "wrong media type": {415},
    "no key": {401},
    "garbage": {400, None},
    "two lengths": {400},
    "not there": {404},
    "a probe": {200},
}
PATIENCE_S = 300
MAX_TOKENS = 24


class Storm:
    def __init__(self, url, key, seed, body_bytes_max):
        self.address = urllib.parse.urlsplit(url)
        self.key = key
        self.random = random.Random(seed)
        self.body_bytes_max = body_bytes_max
        self.seen = collections.Counter()

    def head(self, body_bytes, path="/v1/chat/completions", media_type="application/json", key=None, framing=None):
        return (f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {media_type}\r\n"
                f"Authorization: Bearer {key or self.key}\r\n"
                f"{framing or f'Content-Length: {body_bytes}'}\r\n\r\n").encode()

    def request(self, stream, n=1, content="storm"):
        body = json.dumps({"messages": [{"role": "user", "content": content}], "max_tokens": MAX_TOKENS, "n": n,
                           "stream": stream, "ignore_eos": True}).encode()
        return self.head(len(body)) + body

    def wrong_request(self, kind):
        body = b'{"messages": [{"role": "user", "content": "storm"}]'  # not closed
        if kind == "deep JSON":
            body = b'{"messages":' + b"[" * 200_000
        if kind == "no JSON at all":
            body = self.random.randbytes(2000)
        if kind == "wrong media type":
            return self.head(len(body), media_type="text/plain") + body
        if kind == "no key":
            return self.head(len(body), key="sk-wrong") + body
        if kind == "not there":
            return self.head(len(body), path="/v1/nothing") + body
        if kind == "garbage":
            return self.random.randbytes(300) + b"\r\n\r\n"
        if kind == "two lengths":
            return self.head(5)[:-2] + b"Content-Length: 6\r\n\r\nhello"
        if kind == "huge body":
            return self.head(self.body_bytes_max + 1)
        if kind == "huge body in chunks":
            chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
            return self.head(0, framing="Transfer-Encoding: chunked") + chunk * (self.body_bytes_max // 0x10000 + 2)
        if kind == "huge head":
            return self.head(5)[:-2] + b"x-large: " + b"a" * 200_000 + b"\r\n\r\nhello"
        if kind == "a probe":
            return b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
        return self.head(len(body)) + body

    def message(self, kind):
        if kind in ("stream", "leave anywhere", "read slowly"):
            return self.request(stream=True)
        if kind == "many choices":
            return self.request(stream=True, n=4)
        if kind == "two at once":
            return self.request(stream=True) * 2
        if kind in ("plain", "send slowly"):
            return self.request(stream=False)
        if kind == "long prompt":
            return self.request(stream=True, content="word " * 20_000)
        if kind in ("cut the body", "slow head"):
            message = self.request(stream=True)
            return message[:-20] if kind == "cut the body" else message[:30]
        return self.wrong_request(kind)

    async def send(self, kind, writer):
        message = self.message(kind)
        step = 40 if kind == "send slowly" else len(message)
        for begin in range(0, len(message), step):
            writer.write(message[begin:begin + step])
            await writer.drain()
            if kind == "send slowly":
                await asyncio.sleep(0.01)

    async def read_answer(self, kind, reader, writer):
        line = await reader.readline()
        status = int(line.split()[1]) if line.startswith(b"HTTP/1.1 ") else None
        if status != 200:
            return status
        if kind == "read slowly":
            tail = b""
            while b"[DONE]" not in tail:
                more = await reader.read(40)
                assert more, "the stream ended early"
                tail = tail[-10:] + more
                await asyncio.sleep(0.001)
        elif kind in ("stream", "many choices", "two at once"):
            await reader.readuntil(b"data: [DONE]\n\n")
        if kind == "two at once":
            await reader.readuntil(b"0\r\n\r\n")  # the last chunk
            return await self.read_answer("stream", reader, writer)
        return status

    async def leave(self, reader, writer):
        """Reads up to any byte of the answer, or none, and resets the connection."""
        wanted = self.random.choice([0, 1, self.random.randrange(400), self.random.randrange(6000)])
        try:
            await asyncio.wait_for(reader.readexactly(wanted), self.random.uniform(0.01, 2))
        except (asyncio.TimeoutError, asyncio.IncompleteReadError):
            pass
        # No lingering: what is under way is lost, as when a machine dies.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async def connection(self, kind):
        limit = 1000 if kind == "read slowly" else 1 << 20
        reader, writer = await asyncio.open_connection(self.address.hostname, self.address.port, limit=limit)
        try:
            await self.send(kind, writer)
            if kind in ("cut the body", "slow head"):
                return None
            if kind == "leave anywhere":
                return await self.leave(reader, writer)
            return await self.read_answer(kind, reader, writer)
        except (ConnectionResetError, BrokenPipeError):
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


def storm(url, key, count, seed, body_bytes_max):
    """How often each status came; raises on one that should not have."""
    it = Storm(url, key, seed, body_bytes_max)
    asyncio.run(it.all(count))
    return it.seen
