"""The only door to google-generativeai: one client with a channel of its own, and a value for whatever comes of a call.

The SDK is reached below `genai.configure`, whose settings belong to the whole process: each model is handed a client
whose transport has our channel. Its retries are switched off, because attempts are the prompt engine's to count.
Importing this module imports the SDK, which takes about a second.
"""

import asyncio
import re
import warnings
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Self

import grpc

from gembackend.config import Settings
from gembackend.gemini.faults import BROKEN, NO_CANDIDATE, TIMEOUT, UNSPECIFIED, Failure, Reply, joined

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)
    from google.ai import generativelanguage as glm
    from google.ai.generativelanguage_v1beta.services.generative_service.transports import (
        GenerativeServiceGrpcAsyncIOTransport,
    )
    from google.generativeai.generative_models import GenerativeModel
    from google.protobuf.message import DecodeError
    from google.protobuf.unknown_fields import UnknownFieldSet
    from google.rpc import error_details_pb2, status_pb2

SYSTEM_INSTRUCTION = (
    "You are a helpful assistant in a chat. Keep your replies short: a few sentences in plain language, "
    "unless the user asks for more. Take the earlier messages of the conversation into account."
)

GOOGLE = "grpcs://generativelanguage.googleapis.com:443"

_CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 10_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
)
"""A server that is back is found within about a second; a connection that died silently is given up within 40.

`min_reconnect_backoff_ms` is, against its name, how long one attempt to connect may take.
"""

_RESPONSE_ID = 5
"""The field of `GenerateContentResponse` that the SDK's message type does not know yet."""

_THOUGHT = 11
"""The field of `Part` that says that it is not meant for the user; the SDK's message type does not know it either.

https://github.com/googleapis/googleapis/blob/master/google/ai/generativelanguage/v1beta/content.proto
"""

_REASON = re.compile("[A-Z][A-Z0-9_]{0,62}")
"""What a reason of `google.rpc.ErrorInfo` looks like; anything else might be somebody's text."""

_ROLES = {"user": "user", "assistant": "model"}
_Content: Any = glm.Content.pb()
_FinishReason: Any = glm.Candidate.FinishReason
_BlockReason: Any = glm.GenerateContentResponse.PromptFeedback.BlockReason


class Gemini:
    """Asks one model, or the fallback model on a prompt's last attempt; belongs to the event loop it was made in.

    `endpoint` is `grpc://host:port` for plaintext, `grpcs://host:port` for TLS, None for Google's; `timeout` is how
    many seconds one call may take. `model` and `fallback_model` are names such as `gemini-2.5-flash-lite`.
    """

    def __init__(
        self, *, api_key: str, model: str, fallback_model: str | None, endpoint: str | None, timeout: float
    ) -> None:
        self._timeout = timeout
        self._metadata = (("x-goog-api-key", api_key),)
        self._options: dict[str, Any] = {"retry": None, "timeout": timeout, "metadata": self._metadata}
        self._channel = _open(endpoint or GOOGLE)
        self._client: Any = glm.GenerativeServiceAsyncClient(
            transport=GenerativeServiceGrpcAsyncIOTransport(channel=self._channel)
        )
        self._model: Any = _model(model, self._client)
        self._last_model: Any = _model(fallback_model or model, self._client)
        self._names = (model, fallback_model or model)
        self._loop = asyncio.get_running_loop()

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The client of what the settings name."""
        return cls(
            api_key=settings.gemini_api_key or "",
            model=settings.gemini_model,
            fallback_model=settings.gemini_fallback_model,
            endpoint=settings.gemini_endpoint,
            timeout=settings.gemini_timeout_seconds,
        )

    def name(self, *, last_attempt: bool) -> str:
        """The model that `generate` asks."""
        return self._names[last_attempt]

    async def generate(
        self,
        history: Sequence[tuple[str, str]],
        prompt: str,
        *,
        last_attempt: bool,
        on_text: Callable[[str], None] | None = None,
    ) -> Reply | Failure:
        """Ask for the reply to `prompt` after `history`, pairs of a role (`user` or `assistant`) and a text.

        With `on_text` the reply is streamed, and each piece of its text is told as it comes; together they are the
        reply's text. Streaming costs more, so it is for replies that somebody watches; what cannot stream is asked
        for the whole. Nothing is raised but `CancelledError`, and cancelling closes the call upstream.
        """
        model = self._last_model if last_attempt else self._model
        try:
            contents = [_content(_ROLES[role], text) for role, text in history]
            contents.append(_content("user", prompt))
        except UnicodeEncodeError:
            return Failure("INVALID_ARGUMENT", None, "NOT_UNICODE")
        if on_text is not None:
            streamed = await self._timed(self._streamed(model, contents, on_text))
            if not isinstance(streamed, Failure) or streamed.status != "UNIMPLEMENTED":
                return streamed
        return await self._timed(self._whole(model, contents))

    async def _timed(self, call: Awaitable[Reply | Failure]) -> Reply | Failure:
        """What comes of a call, also when that is an exception."""
        started = self._loop.time()
        try:
            return await call
        except Exception as error:
            return self._failure(error, self._loop.time() - started)

    async def _whole(self, model: Any, contents: list[Any]) -> Reply:
        """One call of `GenerateContent`."""
        response = await model.generate_content_async(contents, request_options=self._options)
        return _reply(response._result)

    async def _streamed(self, model: Any, contents: list[Any], on_text: Callable[[str], None]) -> Reply | Failure:
        """One call of `StreamGenerateContent`: what its chunks come to, as a unary call would have said it.

        The SDK's own streamed response gathers all chunks anew with each one, and raises where we judge.
        """
        request = glm.GenerateContentRequest(
            model=model.model_name, contents=contents, system_instruction=model._system_instruction
        )
        chunks = await self._client.stream_generate_content(request, **self._options)
        reply: Reply | None = None
        async for chunk in chunks:
            told = _reply(chunk)
            if told.text:
                on_text(told.text)
            reply = told if reply is None else joined(reply, told)
        if reply is None or (reply.finish_reason == UNSPECIFIED and reply.block_reason is None):
            return Failure(BROKEN, None, "STREAM_ENDED")
        return reply

    async def check(self, timeout: float, name: str | None = None) -> Failure | None:
        """Whether Gemini can be reached with this key and knows a model, the first one unless it is named.

        None is yes; `timeout` in seconds. `UNIMPLEMENTED` is a model that is for something else than prompts.
        """
        get_model = self._channel.unary_unary(
            "/google.ai.generativelanguage.v1beta.ModelService/GetModel",
            request_serializer=glm.GetModelRequest.serialize,
            response_deserializer=glm.Model.deserialize,
        )
        request = glm.GetModelRequest(name=_model(name or self._names[0], self._client).model_name)
        try:
            known = await get_model(request, timeout=timeout, metadata=self._metadata)
        except Exception as error:
            return self._failure(error, 0.0)
        methods = known.supported_generation_methods
        if methods and "generateContent" not in methods:
            return Failure("UNIMPLEMENTED", None, "NO_GENERATE_CONTENT")
        return None

    async def close(self) -> None:
        """Close the channel; calls in flight are cancelled."""
        await self._channel.close()

    def _failure(self, error: Exception, elapsed: float) -> Failure:
        """What an exception out of the SDK means. Gemini's text is left out: it quotes the prompt, cut or escaped.

        A deadline that passed after about our own timeout is ours (`TIMEOUT`); an earlier one is Gemini's word.
        """
        call = next((cause for cause in _causes(error) if isinstance(cause, grpc.aio.AioRpcError)), None)
        if call is None:
            return Failure(BROKEN, None, type(error).__name__)
        status = call.code().name
        retry_after, reason = _advice(call)
        if status == "DEADLINE_EXCEEDED" and elapsed > 0.9 * self._timeout:
            status = TIMEOUT
        elif status == "INVALID_ARGUMENT" and reason == "API_KEY_INVALID":
            status = "UNAUTHENTICATED"
        return Failure(status, retry_after, reason if _REASON.fullmatch(reason) else "")


def _open(endpoint: str) -> grpc.aio.Channel:
    scheme, _, target = endpoint.partition("://")
    if scheme == "grpcs":
        return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(), _CHANNEL_OPTIONS)
    return grpc.aio.insecure_channel(target, (*_CHANNEL_OPTIONS, ("grpc.enable_http_proxy", 0)))


def _model(name: str, client: Any) -> Any:
    model: Any = GenerativeModel(name, system_instruction=SYSTEM_INSTRUCTION)
    model._async_client = client
    return model


def _content(role: str, text: str) -> Any:
    """One message, made as plain protobuf: the SDK's own conversions cost six times as much."""
    return glm.Content.wrap(_Content(role=role, parts=[{"text": text}]))


def _reply(response: Any) -> Reply:
    message = type(response).pb(response)
    candidate = message.candidates[0] if message.candidates else None
    block_reason = message.prompt_feedback.block_reason
    usage = message.usage_metadata
    return Reply(
        response_id=_response_id(message),
        text="" if candidate is None else "".join(part.text for part in candidate.content.parts if not _thought(part)),
        finish_reason=NO_CANDIDATE if candidate is None else _name(_FinishReason, candidate.finish_reason),
        block_reason=_name(_BlockReason, block_reason) if block_reason else None,
        prompt_tokens=usage.prompt_token_count,
        reply_tokens=usage.candidates_token_count,
        model=message.model_version,
    )


def _name(reasons: Any, number: int) -> str:
    """Google's name of an enum's number; a number newer than the SDK has none."""
    try:
        name: str = reasons(number).name
    except ValueError:
        return f"UNKNOWN_{number}"
    return name


def _thought(part: Any) -> bool:
    """Whether a part is what Gemini thought before it answered."""
    return any(field.field_number == _THOUGHT and field.data for field in UnknownFieldSet(part))


def _response_id(message: Any) -> str:
    for field in UnknownFieldSet(message):
        if field.field_number == _RESPONSE_ID and isinstance(field.data, bytes):
            return field.data.decode("utf-8", "replace")
    return ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The exception and what led to it: api_core hides gRPC's error behind its own, or behind a fault of its parser."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _advice(call: grpc.aio.AioRpcError) -> tuple[float | None, str]:
    """The seconds a failed call asks to wait, if any, and the reason of its `google.rpc.ErrorInfo`, or nothing."""
    delays: list[float] = []
    reason = ""
    for key, value in call.trailing_metadata() or ():
        if key == "retry-after" and isinstance(value, str) and value.isdecimal():
            delays.append(float(value))
        elif key == "grpc-status-details-bin":
            for packed in _details(value):
                if packed.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
                    info = error_details_pb2.RetryInfo.FromString(packed.value)
                    delays.append(info.retry_delay.seconds + info.retry_delay.nanos / 1e9)
                elif packed.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                    reason = error_details_pb2.ErrorInfo.FromString(packed.value).reason
    return max(delays, default=None), reason


def _details(trailer: str | bytes) -> Sequence[Any]:
    status: Any = status_pb2.Status()
    try:
        status.MergeFromString(trailer)
    except (DecodeError, TypeError):
        return ()
    details: Sequence[Any] = status.details
    return details
