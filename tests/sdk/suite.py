"""The official Python packages, unmodified, against the proxy at POINTSMAN_URL."""

import os
import unittest

import anthropic
import httpx2
import openai

URL = os.environ["POINTSMAN_URL"]
HELLO = [{"role": "user", "content": "hello"}]


class Counting(httpx2.BaseTransport):
    """Counts what really goes over the wire, the SDK's own retries included."""

    def __init__(self):
        self.inner, self.requests = httpx2.HTTPTransport(), 0

    def handle_request(self, request):
        self.requests += 1
        return self.inner.handle_request(request)


def client(key="sdk-key", **more):
    wire = Counting()
    made = openai.OpenAI(base_url=URL + "/v1", api_key=key, http_client=httpx2.Client(transport=wire), **more)
    return made, wire


class OpenAI(unittest.TestCase):
    def test_chat(self):
        answer = client()[0].chat.completions.create(model="m", messages=HELLO)
        self.assertEqual(answer.choices[0].message.content, "hello from the provider")
        self.assertEqual(answer.usage.total_tokens, 15)

    def test_response_headers(self):
        raw = client()[0].chat.completions.with_raw_response.create(model="m", messages=HELLO)
        self.assertEqual(raw.headers["x-pointsman-lane"], "primary")
        self.assertTrue(raw.request_id if hasattr(raw, "request_id") else raw.headers["x-request-id"])

    def test_stream(self):
        with client()[0].chat.completions.create(model="m", messages=HELLO, stream=True) as stream:
            chunks = list(stream)
        text = "".join(c.choices[0].delta.content or "" for c in chunks)
        self.assertEqual(text, "hello from the provider")
        self.assertTrue(all(c.usage is None for c in chunks), "usage that was not asked for")

    def test_stream_with_usage(self):
        asked = client()[0].chat.completions.create(
            model="m", messages=HELLO, stream=True, stream_options={"include_usage": True})
        last = list(asked)[-1]
        self.assertEqual((last.choices, last.usage.total_tokens), ([], 15))

    def test_embeddings(self):
        answer = client()[0].embeddings.create(model="e", input=["a", "b"], encoding_format="float")
        self.assertEqual([e.embedding for e in answer.data], [[0.5, 0, 0.25], [0.5, 1, 0.25]])

    def test_models(self):
        names = {m.id for m in client()[0].models.list()}
        self.assertLessEqual({"m", "e", "claude"}, names)

    def test_a_bad_request_is_one_and_is_not_repeated(self):
        made, wire = client()
        with self.assertRaises(openai.BadRequestError) as caught:
            made.chat.completions.create(model="wrong", messages=HELLO)
        self.assertEqual((caught.exception.code, caught.exception.param), ("bad", "messages"))
        self.assertEqual(wire.requests, 1)

    def test_exhaustion_is_not_multiplied_by_the_sdks_retries(self):
        made, wire = client()
        with self.assertRaises(openai.APIStatusError) as caught:
            made.chat.completions.create(model="limited", messages=HELLO)
        self.assertEqual(caught.exception.status_code, 503)
        self.assertEqual(caught.exception.type, "AllPoolsExhausted")
        self.assertGreater(int(caught.exception.response.headers["retry-after"]), 0)
        # An honest Retry-After may be obeyed: the SDK's own two retries, at most.
        self.assertLessEqual(wire.requests, 3)

    def test_a_wrong_key(self):
        with self.assertRaises(openai.AuthenticationError):
            client("wrong")[0].chat.completions.create(model="m", messages=HELLO)

    def test_a_clients_own_rate(self):
        made, _ = client("slow-key", max_retries=0)
        made.chat.completions.create(model="m", messages=HELLO)
        with self.assertRaises(openai.RateLimitError):
            made.chat.completions.create(model="m", messages=HELLO)

    def test_an_unknown_model(self):
        with self.assertRaises(openai.NotFoundError):
            client()[0].chat.completions.create(model="no-such-model", messages=HELLO)

    def test_a_body_that_is_too_large(self):
        with self.assertRaises(openai.APIStatusError) as caught:
            client()[0].chat.completions.create(model="m", messages=[{"role": "user", "content": "x" * 200_000}])
        self.assertEqual(caught.exception.status_code, 413)

    def test_a_cut_stream_raises(self):
        with self.assertRaises(openai.APIError):
            for _ in client()[0].chat.completions.create(model="cut", messages=HELLO, stream=True):
                pass


    def test_a_stream_that_is_resumed_or_late_or_no_stream_at_all(self):
        for model in ["mended", "slow", "json"]:
            asked = client()[0].chat.completions.stream(
                model=model, messages=HELLO, stream_options={"include_usage": True})
            with asked as stream:
                answer = stream.until_done().get_final_completion()
            self.assertEqual(answer.choices[0].message.content, "hello from the provider", model)
            self.assertEqual((answer.choices[0].finish_reason, answer.usage.total_tokens), ("stop", 15), model)


class Anthropic(unittest.TestCase):
    def client(self):
        return anthropic.Anthropic(base_url=URL, api_key="sdk-key")

    def test_message(self):
        answer = self.client().messages.create(model="claude", max_tokens=9, messages=HELLO)
        self.assertEqual(answer.content[0].text, "hello from claude")

    def test_stream(self):
        with self.client().messages.stream(model="claude", max_tokens=9, messages=HELLO) as stream:
            self.assertEqual("".join(stream.text_stream), "hello from claude")
            self.assertEqual(stream.get_final_message().usage.output_tokens, 4)

    def test_a_stream_that_is_resumed_or_late_or_no_stream_at_all(self):
        for model in ["mended-claude", "slow-claude", "json-claude"]:
            with self.client().messages.stream(model=model, max_tokens=9, messages=HELLO) as stream:
                self.assertEqual("".join(stream.text_stream), "hello from claude", model)
                answer = stream.get_final_message()
            self.assertEqual((answer.stop_reason, answer.usage.output_tokens), ("end_turn", 4), model)

    def test_an_unknown_model(self):
        with self.assertRaises(anthropic.NotFoundError) as caught:
            self.client().messages.create(model="no-such-model", max_tokens=9, messages=HELLO)
        self.assertEqual(caught.exception.body["type"], "error")


result = unittest.TextTestRunner().run(unittest.defaultTestLoader.loadTestsFromModule(__import__("__main__")))
bad = len(result.failures) + len(result.errors)
print(f"{result.testsRun - bad} passed, {bad} failed")
raise SystemExit(bad > 0)
