"""Prompts over HTTP: send one, watch it, take it back, ask it once more."""

from uuid import UUID

from aiohttp import web

from gembackend.chatrooms import store as chatrooms
from gembackend.live.waiters import Waiters
from gembackend.messages import store
from gembackend.messages.models import LatestExchange, NewMessage, Prompt
from gembackend.messages.rules import Accept, Cancel, NewPrompt, Verdict, problem_with
from gembackend.messages.verdicts import REFUSALS, problem_with_regenerating, taken
from gembackend.plumbing.faults import Fault, invalid, not_found
from gembackend.plumbing.ids import new_id
from gembackend.plumbing.postgres import Database
from gembackend.web.body import bytes_for, json_reply, read_body
from gembackend.web.middleware import request_id
from gembackend.web.params import IDEMPOTENCY_KEY, PREFER, idempotency_key, path_id, prefer_wait, preference_applied
from gembackend.web.routing import Route
from gembackend.web.session import session_of

GROUP = "Messages"


class MessageRoutes:
    """The message and prompt endpoints. `accept` and `cancel` are the prompt engine's."""

    def __init__(
        self,
        database: Database,
        accept: Accept,
        waiters: Waiters,
        cancel: Cancel,
        *,
        longest_prompt: int,
        daily_prompts: int,
    ) -> None:
        self._database = database
        self._accept = accept
        self._waiters = waiters
        self._cancel = cancel
        self._longest_prompt = longest_prompt
        self._daily_prompts = daily_prompts

    def table(self) -> list[Route]:
        """What is where."""
        messages = "/v1/chatroom/{chatroom_id}/message"
        waits, waited = (PREFER,), ("Preference-Applied",)
        return [
            Route(
                "POST",
                messages,
                self.send,
                "Send a prompt",
                NewMessage,
                Prompt,
                202,
                errors=REFUSALS,
                also=(200,),
                parameters=(PREFER, IDEMPOTENCY_KEY),
                headers=("Location", "Preference-Applied"),
                group=GROUP,
                description=(
                    f"Accept a prompt, not blank and at most {self._longest_prompt} characters, and answer 202; with "
                    "`Prefer: wait=N`, answer 200 with the finished prompt if it finishes within N seconds."
                ),
            ),
            Route(
                "GET",
                messages,
                self.latest,
                "The latest exchange",
                reply=LatestExchange,
                parameters=waits,
                headers=waited,
                group=GROUP,
            ),
            Route(
                "GET",
                "/v1/prompt/{prompt_id}",
                self.prompt,
                "A prompt and its reply",
                reply=Prompt,
                parameters=waits,
                headers=waited,
                group=GROUP,
            ),
            Route(
                "DELETE",
                "/v1/prompt/{prompt_id}",
                self.cancel,
                "Take a prompt back",
                reply=Prompt,
                errors=("prompt_finished",),
                group=GROUP,
            ),
            Route(
                "POST",
                "/v1/prompt/{prompt_id}/regenerate",
                self.regenerate,
                "Ask a prompt once more",
                reply=Prompt,
                success=202,
                errors=("prompt_unfinished", "not_latest", *REFUSALS),
                also=(200,),
                parameters=(PREFER, IDEMPOTENCY_KEY),
                headers=("Location", "Preference-Applied"),
                group=GROUP,
                description=(
                    "Accept a new prompt with the same text, for the latest finished prompt of a room, whether it was "
                    "answered, failed or was cancelled. It counts as any prompt, and both exchanges stay in the room; "
                    "Gemini does not see the earlier replies to the same question. There is no body."
                ),
            ),
        ]

    async def send(self, request: web.Request) -> web.StreamResponse:
        """Accept a prompt; with `Prefer: wait=N`, answer when it has finished or N seconds have passed."""
        user_id, wait = session_of(request).user_id, prefer_wait(request)
        chatroom_id = path_id(request, "chatroom_id", "chatroom")
        key = idempotency_key(request)
        body = await read_body(request, NewMessage, limit=bytes_for(self._longest_prompt))
        if problem := problem_with(body.prompt, self._longest_prompt):
            raise invalid("prompt", problem)
        new = NewPrompt(new_id(), user_id, chatroom_id, body.prompt, key, request_id(request))
        return await self._sent(request, new, wait)

    async def regenerate(self, request: web.Request) -> web.StreamResponse:
        """Ask the room's latest finished prompt once more; what was accepted under the same key is answered first."""
        user_id, wait = session_of(request).user_id, prefer_wait(request)
        prompt_id, key = path_id(request, "prompt_id", "prompt"), idempotency_key(request)
        async with self._database.connection() as connection:
            earlier = await store.to_regenerate(connection, user_id, prompt_id, key)
        if earlier is None:
            raise not_found("prompt")
        if problem := problem_with_regenerating(earlier):
            raise problem
        new = NewPrompt(
            new_id(), user_id, earlier.chatroom_id, earlier.content, key, request_id(request), regenerates=earlier.root
        )
        return await self._sent(request, new, wait)

    async def latest(self, request: web.Request) -> web.StreamResponse:
        """The room's newest prompt; with `Prefer: wait=N`, once it has finished."""
        user_id, wait = session_of(request).user_id, prefer_wait(request)
        chatroom_id = path_id(request, "chatroom_id", "chatroom")
        async with self._database.connection() as connection:
            prompt = await store.latest(connection, user_id, chatroom_id)
            if prompt is None and not await chatrooms.exists(connection, user_id, chatroom_id):
                raise not_found("chatroom")
        if prompt is not None and wait is not None and not prompt.finished:
            prompt = await self._waited(user_id, prompt.id, wait)
        return json_reply(LatestExchange(prompt=prompt), headers=preference_applied(request))

    async def prompt(self, request: web.Request) -> web.StreamResponse:
        """One prompt; with `Prefer: wait=N`, once it has finished."""
        prompt_id = path_id(request, "prompt_id", "prompt")
        prompt = await self._waited(session_of(request).user_id, prompt_id, prefer_wait(request))
        return json_reply(prompt, headers=preference_applied(request))

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        """Cancel a prompt that has not finished; before its first attempt it is not counted."""
        user_id, prompt_id = session_of(request).user_id, path_id(request, "prompt_id", "prompt")
        taken = await self._cancel(user_id, prompt_id)
        if taken == "not_found":
            raise not_found("prompt")
        if taken == "finished":
            raise Fault("prompt_finished", "This prompt has finished already; there is nothing to take back.")
        return json_reply(await self._read(user_id, prompt_id))

    async def _sent(self, request: web.Request, new: NewPrompt, wait: float | None) -> web.StreamResponse:
        """Have a prompt accepted, and answer with it as it is now, or as it is when it has finished."""
        with self._waiters.watch(new.id) as finish:
            verdict = await self._accept(new)
            prompt_id = taken(verdict, daily_prompts=self._daily_prompts)
            if verdict.decision == "replayed":
                prompt = await self._waited(new.user_id, prompt_id, wait)
            elif wait is None:
                prompt = _queued(new, verdict)
            else:
                await finish.within(wait)
                prompt = await self._read(new.user_id, prompt_id)
        done = prompt.finished and wait is not None
        return json_reply(prompt, status=200 if done else 202, headers=_headers(request, prompt))

    async def _waited(self, user_id: UUID, prompt_id: UUID, wait: float | None) -> Prompt:
        """The prompt as it is, or as it is when it has finished or `wait` seconds have passed."""
        with self._waiters.watch(prompt_id) as finish:
            prompt = await self._read(user_id, prompt_id)
            if not wait or prompt.finished:
                return prompt
            await finish.within(wait)
        return await self._read(user_id, prompt_id)

    async def _read(self, user_id: UUID, prompt_id: UUID) -> Prompt:
        async with self._database.connection() as connection:
            prompt = await store.prompt(connection, user_id, prompt_id)
        if prompt is None:
            raise not_found("prompt")
        return prompt


def _queued(new: NewPrompt, verdict: Verdict) -> Prompt:
    """A prompt as it is when it has just been accepted."""
    assert verdict.accepted_at is not None
    return Prompt(
        id=new.id,
        chatroom_id=new.chatroom_id,
        status="queued",
        prompt=new.content,
        attempts=0,
        created_at=verdict.accepted_at,
    )


def _headers(request: web.Request, prompt: Prompt) -> dict[str, str]:
    return {"Location": f"/v1/prompt/{prompt.id}"} | preference_applied(request)
