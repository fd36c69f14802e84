"""Serve an exported classifier on port 8000: python examples/server.py runs/onnx. Needs what classify_onnx.py needs.
curl localhost:8000 -d '["I lost my card"]' prints [["lost_or_stolen_card", 0.93]]; GET checks the health.
"""

import json
import sys
from concurrent.futures import Future
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue
from threading import Thread

from classify_onnx import Classifier

WAITING, LARGEST = Queue(), 32  # texts of all requests; texts of a batch


def work(classify: Classifier) -> None:
    while batch := [WAITING.get(), *(WAITING.get() for _ in range(min(WAITING.qsize(), LARGEST - 1)))]:
        for (_, future), result in zip(batch, classify([text for text, _ in batch]), strict=True):
            future.set_result(result)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self, status: int = 200, answer: object = "ok") -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def do_POST(self) -> None:
        try:
            texts = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            for item in (found := [("".join([text]), Future()) for text in list.copy(texts)]):
                WAITING.put(item)
        except (TypeError, ValueError):
            return self.do_GET(400, 'send a JSON list of texts, as ["I lost my card"]')
        return self.do_GET(200, [future.result() for _, future in found])


Thread(target=work, args=[Classifier(sys.argv[1])], daemon=True).start()
ThreadingHTTPServer(("127.0.0.1", int((sys.argv[2:] or [8000])[0])), Handler).serve_forever()
