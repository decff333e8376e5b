"""Talks with tokenizer_driver: frames of a length and bytes, one answer for each question."""

import struct
import subprocess


class Driver:
    def __init__(self, program, *arguments):
        self.child = subprocess.Popen(
            [program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def ask(self, frame):
        self.child.stdin.write(struct.pack("<I", len(frame)) + frame)
        self.child.stdin.flush()
        head = self.child.stdout.read(4)
        if len(head) < 4:
            raise SystemExit(f"the driver died on {frame[:2000]!r}")
        (size,) = struct.unpack("<I", head)
        return self.child.stdout.read(size)

    def ids(self, frame):
        answer = self.ask(frame)
        if answer.startswith(b"error:"):
            raise SystemExit(f"{answer.decode()} on {frame[:400]!r}")
        return list(struct.unpack(f"<{len(answer) // 4}I", answer))

    def close(self):
        self.child.stdin.close()
        if self.child.wait() != 0:
            raise SystemExit(f"the driver ended with {self.child.returncode}")
